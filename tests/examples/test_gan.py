"""The worked GAN: it trains both models, shows its images, and goes on to the bit after SIGKILL."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import average
import export
import predict
from example_runs import evaluate, run_train, train
from faults import (
    assert_same_run,
    curves_of,
    exit_code,
    finish,
    start,
    the_run,
    whole_run,
    with_changes,
    write_config,
)
from few_digits import on_few_digits
from helpers import ROOT, newest, records_of, status_of
from utils import ConfigError


@pytest.fixture
def config(digits_dir: Path, tmp_path: Path) -> dict[str, Any]:
    """Return configs/gan.json of 2 epochs on a few digits."""
    content: dict[str, Any] = json.loads((ROOT / "configs/gan.json").read_text())
    del content["$schema"]
    content["n_gpu"] = 0
    content["trainer"] |= {"epochs": 2, "save_dir": str(tmp_path / "saved"), "log_every_steps": 1}
    return on_few_digits(content, digits_dir)


def test_it_trains_both_models_and_shows_images_after_each_epoch(config: dict[str, Any]) -> None:
    run_dir = train(config)
    checkpoint = newest(run_dir)
    for name in ("generator", "discriminator"):
        first = next(iter(checkpoint[f"optimizer.{name}"]["state"].values()))
        assert first["step"] == checkpoint["position"]["global_step"] > 0
        assert torch.any(first["exp_avg"] != 0)
    images = curves_of(run_dir)["samples/generator"]
    steps = [record["global_step"] for record in records_of(run_dir) if record["kind"] == "epoch"]
    assert [step for step, _ in images] == steps
    assert len({checksum for _, checksum in images}) == 2
    for record in records_of(run_dir):
        if record["kind"] == "epoch":
            assert record["loss"] == pytest.approx(record["discriminator_loss"] + record["generator_loss"])


def test_how_often_images_are_shown_changes_no_bit(config: dict[str, Any], tmp_path: Path) -> None:
    shown = newest(train(config))["model"]
    hidden = train(with_changes(config, trainer__save_dir=str(tmp_path / "hidden"), trainer__log_figures=None))
    assert "samples/generator" not in curves_of(hidden)
    assert all(torch.equal(value, newest(hidden)["model"][name]) for name, value in shown.items())


@pytest.mark.slow
def test_with_half_precision_an_average_and_clipping_it_trains_too(config: dict[str, Any]) -> None:
    config["trainer"] |= {"precision": "bf16", "ema_decay": 0.9, "max_grad_norm": 0.5}
    checkpoint = newest(train(config))
    assert checkpoint["ema"]["model"].keys() == checkpoint["model"].keys()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"trainer__type": None}, r"optimizer: there are several \(generator, discriminator\), and Trainer steps one"),
        ({"trainer__type": "GanTrainr"}, "trainer.type: unknown type 'GanTrainr'; did you mean 'GanTrainer'?"),
        ({"trainer__type": "run_batch"}, "trainer.type: unknown type 'run_batch'; trainer.batch.run_batch"),
        ({"trainer__grad_accum_steps": 2}, "trainer.grad_accum_steps: 2, which GanTrainer does not follow"),
        ({"trainer__cuda_graph": True}, "trainer.cuda_graph: it is for one optimizer"),
        ({"trainer__virtual_ranks": 2}, "arch: several models .* train in one process"),
        ({"data_loader__args__validation_split": 0.5}, "arch: there are several models"),
        ({"arch__generator__args__width": 0}, "arch.generator.args.width: Input should be greater than or equal to 1"),
    ],
    ids=str,
)
def test_what_does_not_go_with_it_is_refused_before_there_is_a_run(
    changes: dict[str, Any], problem: str, config: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=problem.replace("?", r"\?")):
        train(with_changes(config, **changes))
    assert not list(Path(config["trainer"]["save_dir"]).glob("*/*"))


def test_check_works_and_other_scripts_end_in_one_line(
    config: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = train(config)
    given = str(tmp_path / "saved" / "given.json")
    run_train("-c", given, "--check")
    shown = capsys.readouterr().out
    assert "Generator" in shown
    assert "Discriminator" in shown
    predictor = predict.Predictor.load(run_dir)
    calls = [
        (lambda: run_train("-c", given, "--lr-find"), "--lr-find: is for one optimizer; there are generator, discr"),
        (lambda: run_train("-c", given, "--check", "--as-if", "2"), "arch: several models .* train in one process"),
        (lambda: evaluate("-r", str(run_dir)), "arch: there are several models"),
        (lambda: predictor(torch.zeros(28, 28, dtype=torch.uint8).numpy()), "arch: there are several models"),
        (lambda: export.main(*export.parse_args(["-r", str(run_dir), "--format", "onnx"])), "arch: there are several"),
        (lambda: average.main(["-r", *map(str, sorted(run_dir.glob("*.pth"))[:2])]), "arch: there are several models"),
    ]
    for call, problem in calls:
        with pytest.raises(ConfigError, match=problem) as caught:
            call()
        assert len(caught.value.problems) == 1
    assert not list(run_dir.glob("export-onnx/*"))


@pytest.mark.slow
def test_a_run_that_is_killed_at_random_steps_goes_on_to_the_bit(config: dict[str, Any], tmp_path: Path) -> None:
    config["trainer"] |= {"epochs": 6, "save_every_steps": 1}
    expected = whole_run(with_changes(json.loads(json.dumps(config)), trainer__save_dir=str(tmp_path / "whole")))
    generator, places = random.Random(0), list[int]()
    config["trainer"]["save_dir"] = str(tmp_path / "killed")
    args = ("-c", write_config(config), "--resume-latest")
    while len(places) < 8:
        before = position_in(tmp_path / "killed")
        process = start(*args)
        while process.is_alive() and position_in(tmp_path / "killed") <= before:  # until it has made a step
            time.sleep(0.002)
        time.sleep(generator.uniform(0, 0.3))
        if process.is_alive() and process.pid is not None:
            os.kill(process.pid, signal.SIGKILL)
        if exit_code(process) == 0:
            break
        places.append(position_in(tmp_path / "killed"))
    assert len(set(places)) > 3, places
    assert finish(*args) == 0
    killed = the_run(config)
    assert status_of(killed)["status"] == "completed"
    assert_same_run(expected, killed)
    assert [step for step, _ in curves_of(killed)["samples/generator"]] == [
        record["global_step"] for record in records_of(expected) if record["kind"] == "epoch"
    ]


def position_in(save_dir: Path) -> int:
    """Return how many steps the newest checkpoint below `save_dir` has, or -1 where there is none."""
    runs = list(save_dir.glob("*/*/latest.pth"))
    return int(newest(runs[0].parent)["position"]["global_step"]) if runs else -1
