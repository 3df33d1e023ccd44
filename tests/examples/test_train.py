"""The uses of the template from end to end: train, resume, fine-tune, test, and the published config."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from checkpoint.file import find_checkpoint, load_checkpoint
from example_runs import curves, evaluate, run_train, train
from few_digits import NUM_IMAGES, NUM_STEPS
from helpers import assert_equal, epochs_of, newest, records_of
from utils import CheckpointError

STATE = ("model", "optimizer", "lr_scheduler", "monitor", "position", "rng")


SCHEDULERS: dict[str, dict[str, Any]] = {
    "LambdaLR per epoch": {"type": "LambdaLR", "args": {"lr_lambda": "0.9 ** epoch"}},
    "LambdaLR per step": {
        "type": "LambdaLR",
        "interval": "step",
        "args": {"lr_lambda": {"type": "warmup_cosine", "args": {"warmup": 5, "total": 24}}},
    },
    "plateau": {"type": "ReduceLROnPlateau", "args": {"patience": 0, "threshold": 0.5}},
}  # and others of torch in tests/engine/test_runs.py


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_an_epoch_resumed_to_three_equals_three_in_one_go(config: dict[str, Any], scheduler: str) -> None:
    config["lr_scheduler"] = SCHEDULERS[scheduler]
    whole = train(config, "--set", "trainer.epochs=3")
    part = train(config, "--set", "trainer.epochs=1")
    resumed = run_train("-r", str(part), "--set", "trainer.epochs=3")

    assert resumed == part
    expected, got = newest(whole), newest(resumed)
    assert expected["position"] == {"epoch": 4, "step_in_epoch": 0, "global_step": 3 * NUM_STEPS}
    for key in STATE:
        assert_equal(expected[key], got[key], key)
    assert records_of(whole) == records_of(resumed)
    assert curves(whole) == curves(resumed)


def test_a_resumed_run_stops_early_where_the_whole_one_does(config: dict[str, Any]) -> None:
    config["optimizer"]["args"]["lr"] = 0.0  # nothing is ever better than the first epoch
    config["trainer"] |= {"early_stop": 3, "epochs": 20}
    whole = train(config)
    part = train(config, "--set", "trainer.epochs=2")
    resumed = run_train("-r", str(part), "--set", "trainer.epochs=20")
    assert len(epochs_of(whole)) == 4
    assert epochs_of(resumed) == epochs_of(whole)


def test_early_stopping_keeps_the_best_checkpoint(config: dict[str, Any]) -> None:
    run_dir = train(config, "--set", "trainer.epochs=5", "--lr", "0.02")
    losses = [record["val_loss"] for record in epochs_of(run_dir)]
    best = load_checkpoint(run_dir / "model_best.pth")
    assert best["monitor"]["best"] == min(losses)
    assert best["epoch"] == losses.index(min(losses)) + 1
    assert best["log"]["val_loss"] == min(losses)


def test_going_back_to_an_earlier_checkpoint_gives_one_continuous_curve(config: dict[str, Any]) -> None:
    run_dir = train(config, "--set", "trainer.epochs=3")
    before, curves_before = records_of(run_dir), curves(run_dir)
    run_train("-r", str(run_dir / "checkpoint-epoch2.pth"))
    assert records_of(run_dir) == before
    assert curves(run_dir) == curves_before


def test_fine_tuning_starts_a_new_run_from_the_weights(config: dict[str, Any]) -> None:
    first = train(config)
    second = train(config, "-r", str(first), "--lr", "0", "--set", "trainer.epochs=1")
    assert second != first
    assert newest(second)["position"]["global_step"] == NUM_STEPS
    assert_equal(newest(first)["model"], newest(second)["model"])


def test_weights_that_do_not_fit_are_refused_and_leave_nothing(config: dict[str, Any]) -> None:
    first = train(config)
    runs = sorted(first.parent.iterdir())
    with pytest.raises(CheckpointError, match=r"fc2.* is torch.float32 \[10"):
        train(config, "-r", str(first), "--set", "arch.args.num_classes=11")
    assert sorted(first.parent.iterdir()) == runs


def test_the_test_split_gives_the_same_numbers_whatever_the_batch_size(config: dict[str, Any]) -> None:
    run_dir = train(config)
    results = [evaluate("-r", str(run_dir), "--bs", size) for size in ("1", "7", "32", "1000")]
    for result in results[1:]:
        assert result == pytest.approx(results[0], rel=1e-6)
    num_right = results[0]["accuracy"] * NUM_IMAGES[False]
    assert num_right == pytest.approx(round(num_right), abs=1e-4)


def test_the_same_config_and_seed_give_the_same_run_and_another_seed_another(config: dict[str, Any]) -> None:
    one, two = train(config), train(config)
    other = train(config, "--set", "seed=1")
    assert_equal(newest(one)["model"], newest(two)["model"])
    assert not torch.equal(newest(one)["model"]["fc2.bias"], newest(other)["model"]["fc2.bias"])


def test_the_resolved_config_of_a_run_gives_the_same_run(config: dict[str, Any]) -> None:
    config["data_loader"]["args"]["source"] = "auto"
    first = train(config, "--lr", "0.01")
    assert json.loads((first / "config.json").read_text())["data_loader"]["args"]["source"] == "mnist"
    second = run_train("-c", str(first / "config.json"))
    for key in STATE:
        assert_equal(newest(first)[key], newest(second)[key], key)


def test_the_published_config_runs_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # it saves under saved/ and looks for MNIST in data/; without it, digits
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    run_dir = run_train("-c", str(Path(__file__).with_name("published_config.json")), "--set", "trainer.epochs=1")
    assert run_dir.is_relative_to("saved/Mnist_LeNet")
    assert len(epochs_of(run_dir)) == 1
    resolved = json.loads((run_dir / "config.json").read_text())
    assert resolved["data_loader"]["args"]["source"] == "digits"
    assert resolved["optimizer"]["args"]["amsgrad"] is True
    measured = evaluate("-r", str(run_dir))
    assert measured.keys() == {"loss", "accuracy", "top_k_acc"}
    saved = json.loads((run_dir / "test.json").read_text())
    assert (saved["metrics"], saved["num_samples"], saved["epoch"]) == (measured, 359, 1)


def test_accumulated_microbatches_equal_one_large_batch(config: dict[str, Any]) -> None:
    config["arch"]["args"]["dropout"] = 0.0  # the masks would differ
    config["optimizer"] = {"type": "SGD", "args": {"lr": 0.1}}
    config["trainer"]["max_grad_norm"] = 1.0
    large = newest(train(config, "--bs", "60"))
    small = newest(train(config, "--bs", "20", "--set", "trainer.grad_accum_steps=3"))
    assert large["position"] == small["position"]
    for name, weight in large["model"].items():
        torch.testing.assert_close(small["model"][name], weight, rtol=1e-4, atol=1e-5)


def test_epochs_of_a_given_length_cut_an_endless_stream(config: dict[str, Any]) -> None:
    """8 steps are one pass over the data: 4 epochs of 4 steps make 2 epochs of 8, to the bit."""
    config["lr_scheduler"] = None
    passes = newest(train(config))
    cut = newest(train(config, "--set", "trainer.len_epoch=4", "--set", "trainer.epochs=4"))
    assert cut["position"]["global_step"] == passes["position"]["global_step"] == 2 * NUM_STEPS
    assert_equal(passes["model"], cut["model"])


def test_quadratic_config_finds_the_true_coefficients(tmp_path: Path) -> None:
    from data_loader.make_quadratic import COEFFICIENTS, NOISE_VARIANCE

    run_dir = run_train("-c", "configs/csv_regression.json", "--set", f"trainer.save_dir={tmp_path}")
    best = load_checkpoint(run_dir / "model_best.pth")
    assert best["log"]["val_loss"] == pytest.approx(NOISE_VARIANCE, rel=0.1)
    assert best["model"]["coefficients"].tolist() == pytest.approx(list(COEFFICIENTS), rel=0.02)


def test_going_back_twice_loses_nothing_and_keeps_a_best(config: dict[str, Any]) -> None:
    run_dir = train(config, "--set", "trainer.epochs=3")
    (run_dir / "my_export.pth").write_bytes(b"mine")
    for _ in range(2):
        run_train("-r", str(run_dir / "checkpoint-epoch2.pth"), "--set", "trainer.epochs=2")
        best = load_checkpoint(run_dir / "model_best.pth")
        assert best["epoch"] == best["monitor"]["best_epoch"] <= 2
        run_train("-r", str(run_dir), "--set", "trainer.epochs=3")
    assert len(list(run_dir.glob("checkpoint-epoch3.pth.superseded*"))) == 2
    assert (run_dir / "my_export.pth").read_bytes() == b"mine"


def test_null_turns_a_section_off(config: dict[str, Any]) -> None:
    run_dir = train(config, "--set", "lr_scheduler=null", "--set", "trainer.epochs=1")
    assert json.loads((run_dir / "config.json").read_text())["lr_scheduler"] is None
    assert "lr_scheduler" not in newest(run_dir)


def test_a_checkpoint_from_before_validation_is_older_than_one_from_after_it(config: dict[str, Any]) -> None:
    """Both are of one optimizer step, but the logs of the later one must not outlive a resume from the earlier one."""
    run_dir = train(config, "--set", "trainer.epochs=1", "--set", f"trainer.save_every_steps={NUM_STEPS}")
    expected = records_of(run_dir)
    positions = [load_checkpoint(run_dir / name)["position"] for name in ("previous.pth", "latest.pth")]
    assert [position["global_step"] for position in positions] == [NUM_STEPS, NUM_STEPS]
    assert find_checkpoint(run_dir).name in ("latest.pth", "checkpoint-epoch1.pth", "model_best.pth")
    run_train("-r", str(run_dir / "previous.pth"))
    assert (run_dir / "latest.pth.superseded").exists()
    assert records_of(run_dir) == expected
