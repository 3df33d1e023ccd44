"""A run from end to end: train, resume, go back, stop early; one continuous curve, whatever lies between."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import toy
from checkpoint.file import find_checkpoint, load_checkpoint
from faults import assert_same_run, curves_of, the_run
from helpers import assert_equal, epochs_of, newest, records_of, write_given
from toy_runs import assert_exact_at, run, small_config, stopped_at, train
from utils import ConfigError, RunDirError

pytestmark = pytest.mark.e2e  # whole runs

SCHEDULERS: dict[str, Any] = {
    "LambdaLR per step": {
        "type": "LambdaLR",
        "interval": "step",
        "args": {"lr_lambda": {"type": "inverse_decay", "args": {"rate": 0.1}}},
    },
    "plateau": {"type": "ReduceLROnPlateau", "args": {"patience": 0, "threshold": 0.5}},
    "OneCycleLR": {"type": "OneCycleLR", "interval": "step", "args": {"max_lr": 0.01, "total_steps": 18}},
    "MultiStepLR": {"type": "MultiStepLR", "args": {"milestones": [1, 2]}},
    "CosineAnnealingWarmRestarts": {"type": "CosineAnnealingWarmRestarts", "args": {"T_0": 1, "T_mult": 2}},
    "CyclicLR": {"type": "CyclicLR", "interval": "step", "args": {"base_lr": 1e-4, "max_lr": 1e-2, "step_size_up": 3}},
    "StepLR": {"type": "StepLR", "args": {"step_size": 2}},
    "LinearLR": {"type": "LinearLR", "args": {"total_iters": 2}},
    "PolynomialLR": {"type": "PolynomialLR", "interval": "step", "args": {"total_iters": 18}},
    "none": None,
}


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    """Return the toy's config."""
    return small_config(tmp_path / "saved")


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_one_epoch_resumed_to_three_equals_three_in_one_go(config: dict[str, Any], scheduler: str) -> None:
    config["lr_scheduler"] = SCHEDULERS[scheduler]
    whole = train(config, "--set", "trainer.epochs=3")
    part = train(config, "--set", "trainer.epochs=1")
    assert run("-r", str(part), "--set", "trainer.epochs=3") == part
    assert newest(part)["position"] == {"epoch": 4, "step_in_epoch": 0, "global_step": 18}
    assert_same_run(whole, part)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"data_loader__type": "TensorLoader", "trainer__grad_accum_steps": 2, "trainer__len_epoch": 5},
        {
            "metrics": ["accuracy", {"type": "MulticlassF1Score", "args": {"num_classes": 3}}],
            "lr_scheduler": SCHEDULERS["LambdaLR per step"],
            "optimizer": {"type": "SGD", "args": {"lr": 0.1, "momentum": 0.9}},
        },
    ],
    ids=["samples", "tensors, accumulated, of a given length", "torchmetrics, a schedule per step"],
)
def test_a_stop_anywhere_is_exact(changes: dict[str, Any], tmp_path: Path) -> None:
    assert_exact_at((1, 5, 6, 7, 12) if not changes else (2, 9), tmp_path, **changes)


def test_a_run_may_stop_many_times(tmp_path: Path) -> None:
    expected = train(small_config(tmp_path / "whole"))
    config = small_config(tmp_path / "stopped", trainer__save_every_steps=2)
    with stopped_at(1):
        train(config)
    for place in (1, 3, 1, 4):
        with stopped_at(place):
            run("-r", str(the_run(config)))
    assert newest(the_run(config))["position"]["global_step"] == 10
    run("-r", str(the_run(config)))
    for key in ("model", "optimizer", "rng", "position", "train_metrics"):
        assert_equal(newest(expected)[key], newest(the_run(config))[key], key)
    assert records_of(expected) == records_of(the_run(config))


def test_the_newest_run_of_a_name_is_gone_on_with(config: dict[str, Any]) -> None:
    config["data_loader"] = {"type": "TensorLoader", "args": {"batch_size": 5, "validation_split": 6, "source": "auto"}}
    path = write_given(config)
    with stopped_at(3):
        run("-c", path, "--resume-latest")
    assert run("-c", path, "--resume-latest") == the_run(config)
    before = records_of(the_run(config))
    assert run("-c", path, "--resume-latest") == the_run(config)
    assert records_of(the_run(config)) == before
    with pytest.raises(ConfigError, match="either -r or --resume-latest"):
        run("-c", path, "-r", str(the_run(config)), "--resume-latest")


def test_a_resumed_run_stops_early_where_the_whole_one_does(config: dict[str, Any]) -> None:
    config["optimizer"] = {"type": "SGD", "args": {"lr": 0.0}}
    config["trainer"] |= {"early_stop": 3, "epochs": 20, "monitor": "max val_accuracy"}
    config["data_loader"] = {"type": "TensorLoader", "args": {"batch_size": 28, "validation_split": 6}}
    whole = train(config)
    part = train(config, "--set", "trainer.epochs=2")
    assert 2 < len(epochs_of(whole)) < 20
    resumed = run("-r", str(part), "--set", "trainer.epochs=20")
    assert epochs_of(resumed) == epochs_of(whole)
    assert json.loads((resumed / "status.json").read_text())["status"] == "early_stopped"


def test_the_best_checkpoint_is_that_of_the_best_epoch(config: dict[str, Any]) -> None:
    run_dir = train(config, "--set", "trainer.epochs=6", "--lr", "0.3")
    losses = [record["val_loss"] for record in epochs_of(run_dir)]
    assert losses[-1] > min(losses)
    best = load_checkpoint(run_dir / "model_best.pth")
    assert best["monitor"]["best"] == best["log"]["val_loss"] == min(losses)
    assert best["epoch"] == losses.index(min(losses)) + 1


def test_going_back_to_an_earlier_checkpoint_gives_one_continuous_curve(config: dict[str, Any]) -> None:
    run_dir = train(config, "--set", "trainer.epochs=3")
    before, curves_before = records_of(run_dir), curves_of(run_dir)
    run("-r", str(run_dir / "checkpoint-epoch1.pth"))
    assert records_of(run_dir) == before
    assert curves_of(run_dir) == curves_before


def test_going_back_twice_loses_nothing_and_keeps_a_best(config: dict[str, Any]) -> None:
    run_dir = train(config, "--set", "trainer.epochs=3")
    (run_dir / "my_export.pth").write_bytes(b"mine")
    for _ in range(2):
        run("-r", str(run_dir / "checkpoint-epoch2.pth"), "--set", "trainer.epochs=2")
        best = load_checkpoint(run_dir / "model_best.pth")
        assert best["epoch"] == best["monitor"]["best_epoch"] <= 2
        run("-r", str(run_dir), "--set", "trainer.epochs=3")
    assert len(list(run_dir.glob("checkpoint-epoch3.pth.superseded*"))) == 2
    assert (run_dir / "my_export.pth").read_bytes() == b"mine"


def test_a_checkpoint_from_before_validation_is_older_than_one_from_after_it(config: dict[str, Any]) -> None:
    """Both are of one optimizer step, but the logs of the later one must not outlive a resume from the earlier one."""
    run_dir = train(config, "--set", "trainer.epochs=1", "--set", "trainer.save_every_steps=6")
    expected = records_of(run_dir)
    positions = [load_checkpoint(run_dir / name)["position"] for name in ("previous.pth", "latest.pth")]
    assert [position["global_step"] for position in positions] == [6, 6]
    assert find_checkpoint(run_dir).name in ("latest.pth", "checkpoint-epoch1.pth", "model_best.pth")
    run("-r", str(run_dir / "previous.pth"))
    assert (run_dir / "latest.pth.superseded").exists()
    assert records_of(run_dir) == expected


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({}, ["checkpoint-epoch1.pth", "checkpoint-epoch2.pth", "checkpoint-epoch3.pth"]),
        ({"trainer__save_period": 2}, ["checkpoint-epoch2.pth", "checkpoint-epoch3.pth"]),
        ({"trainer__keep_checkpoints": 1}, ["checkpoint-epoch3.pth"]),
        ({"trainer__monitor": "off"}, ["checkpoint-epoch1.pth", "checkpoint-epoch2.pth", "checkpoint-epoch3.pth"]),
    ],
    ids=str,
)
def test_checkpoints_are_those_that_the_config_asks_for(
    changes: dict[str, Any], names: list[str], tmp_path: Path
) -> None:
    run_dir = train(small_config(tmp_path, trainer__epochs=3, **changes))
    assert sorted(path.name for path in run_dir.glob("checkpoint*")) == names
    assert (run_dir / "latest.pth").exists()
    assert (run_dir / "model_best.pth").exists() is ("trainer__monitor" not in changes)


def test_saves_come_every_so_many_steps_or_minutes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for key, value, expected in (("save_every_steps", 4, 3), ("save_every_minutes", 1e-9, 12), ("verbosity", 2, 0)):
        caplog.clear()
        train(small_config(tmp_path / key, **{f"trainer__{key}": value}))
        saves = [message for message in caplog.messages if message.startswith("saved ")]
        assert len(saves) == 1 + 2 + expected, key  # at the start, after each epoch, and those
    assert "training waited" in saves[0]


def test_the_same_config_and_seed_give_the_same_run_and_another_seed_another(config: dict[str, Any]) -> None:
    one, two = train(config), train(config)
    other = train(config, "--set", "seed=1")
    assert_same_run(one, two)
    assert not torch.equal(newest(one)["model"]["head.bias"], newest(other)["model"]["head.bias"])


def test_the_resolved_config_of_a_run_gives_the_same_run(config: dict[str, Any]) -> None:
    first = train(config, "--lr", "0.02", "--set", "curriculum.note=mine")
    assert_same_run(first, run("-c", str(first / "config.json")))


def test_epochs_of_a_given_length_cut_an_endless_stream(config: dict[str, Any]) -> None:
    """6 steps are one pass over the data: 4 epochs of 3 steps make 2 epochs of 6, to the bit."""
    config["lr_scheduler"] = None
    passes = newest(train(config, "--set", "metrics=[]"))
    cut = newest(train(config, "--set", "metrics=[]", "--set", "trainer.len_epoch=3", "--set", "trainer.epochs=4"))
    assert cut["position"]["global_step"] == passes["position"]["global_step"] == 12
    assert_equal(passes["model"], cut["model"])


@pytest.mark.parametrize("loop", ["counted", "plain"])
def test_the_test_split_gives_the_same_numbers_whatever_the_batch_size(loop: str, config: dict[str, Any]) -> None:
    config["trainer"]["loop"] = loop
    run_dir = train(config)
    results = [toy.evaluate(["-r", str(run_dir), "--bs", size]) for size in ("1", "7", "1000")]
    for result in results[1:]:
        assert result == pytest.approx(results[0], rel=1e-6)
    assert results[0]["accuracy"] * 34 == pytest.approx(round(results[0]["accuracy"] * 34), abs=1e-4)


def test_tensorboard_has_curves_and_config(config: dict[str, Any]) -> None:
    run_dir = train(config)
    events = EventAccumulator(str(run_dir)).Reload()
    assert set(events.Tags()["scalars"]) == {
        *("loss/train", "loss/valid", "accuracy/train", "accuracy/valid", "stretched_loss/train", "step/loss"),
        *("best/val_loss", "best/val_accuracy"),
    }
    assert set(events.Tags()["tensors"]) - {"git_diff/text_summary"} == {
        *("config/text_summary", "environment/text_summary", "custom_scalars__config__"),
    }
    assert [event.step for event in events.Scalars("loss/valid")] == [6, 12]
    assert [event.step for event in events.Scalars("step/loss")] == list(range(1, 13))


def test_without_tensorboard_there_are_no_event_files(config: dict[str, Any]) -> None:
    for loop in ("counted", "plain"):
        run_dir = train(config, "--set", "trainer.tensorboard=false", "--set", f"trainer.loop={loop}")
        assert not list(run_dir.rglob("events*"))
        assert len(epochs_of(run_dir)) == 2


def test_a_run_directory_holds_what_it_says(config: dict[str, Any]) -> None:
    run_dir = train(config)
    names = {path.name for path in run_dir.iterdir() if not path.name.startswith("events")}
    assert names - {"git.diff"} == {
        *("config.json", "environment.json", "info.log", "metrics.jsonl", "status.json", ".lock"),
        *("latest.pth", "previous.pth"),
        *("model_best.pth", "checkpoint-epoch1.pth", "checkpoint-epoch2.pth"),
    }
    status = json.loads((run_dir / "status.json").read_text())
    assert (status["status"], status["position"]) == ("completed", newest(run_dir)["position"])
    log = (run_dir / "info.log").read_text()
    assert "Trainable parameters: 83" in log
    assert "epoch 2/2  loss " in log
    assert newest(run_dir)["format"] == 2


def test_null_turns_a_section_off(config: dict[str, Any]) -> None:
    run_dir = train(config, "--set", "lr_scheduler=null", "--set", "trainer.epochs=1")
    assert json.loads((run_dir / "config.json").read_text())["lr_scheduler"] is None
    assert "lr_scheduler" not in newest(run_dir)


def test_a_link_in_a_run_directory_is_not_written_through(config: dict[str, Any], tmp_path: Path) -> None:
    run_dir = train(config, "--set", "trainer.epochs=1")
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (run_dir / "metrics.jsonl").unlink()
    (run_dir / "metrics.jsonl").symlink_to(precious)
    with pytest.raises(RunDirError, match=r"metrics\.jsonl: is a symbolic link"):
        run("-r", str(run_dir), "--set", "trainer.epochs=2")
    assert precious.read_text() == "mine"
