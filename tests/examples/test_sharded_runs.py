"""Sharding a model over processes changes nothing but where its weights are: the run and its checkpoints stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from checkpoint.file import load_checkpoint
from faults import assert_same_run, the_run, whole_run, with_changes
from helpers import assert_equal, newest
from sharded_runs import OPTIMIZERS, PARTS, TOLERANCE, assert_close, config_of, reloaded, run, sharded, trained


@pytest.mark.parametrize(
    ("optimizer", "ema_decay"), [("SGD", 0.9), pytest.param("AdamW", None, marks=pytest.mark.slow)]
)
def test_two_processes_train_as_one_does(tmp_path: Path, optimizer: str, ema_decay: float | None) -> None:
    changes = {"optimizer": {"type": optimizer, "args": OPTIMIZERS[optimizer]}, "trainer__ema_decay": ema_decay}
    one = newest(whole_run(config_of(tmp_path / "one", **changes)))
    two = newest(trained(sharded(config_of(tmp_path / "two", **changes)), 2))
    assert two.keys() == one.keys()
    assert_close(one["model"], two["model"], "model")
    assert_close(one["ema"], two["ema"], "ema")
    assert_close(one["optimizer"]["state"], two["optimizer"]["state"], "optimizer", 10 * TOLERANCE)
    for name, value in one["log"].items():
        assert name.startswith("perf/") or two["log"][name] == pytest.approx(value, rel=1e-5), name


@pytest.mark.parametrize("size", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_a_resumed_run_ends_as_one_that_never_stopped(tmp_path: Path, size: int) -> None:
    changes = {"arch__args__dropout": 0.2, "data_loader__args__max_shift": 2}
    config = sharded(config_of(tmp_path / "part", **changes))
    trained(config, size)
    part = trained(with_changes(config, trainer__epochs=2), size, "--resume-latest")
    config["trainer"]["save_dir"] = str(tmp_path / "whole")
    assert_same_run(trained(config, size), part)


def test_what_one_process_saved_is_what_a_sharded_run_loads_and_saves(tmp_path: Path) -> None:
    config = config_of(tmp_path / "run")
    (path,) = whole_run(config).glob("checkpoint-epoch1.pth")
    saved = load_checkpoint(path)
    assert not run(sharded(config), 2, "-r", str(path), do=reloaded)
    state = torch.load(tmp_path / "run.out", weights_only=True)
    assert state.keys() == set(PARTS)
    for key in PARTS:
        assert_equal(saved[key], state[key], key)


def test_what_a_sharded_run_saved_is_what_one_process_loads(tmp_path: Path) -> None:
    config = sharded(config_of(tmp_path / "run"))
    (path,) = trained(config, 2).glob("checkpoint-epoch1.pth")
    saved = load_checkpoint(path)
    assert not run(config, 1, "-r", str(path), do=reloaded)
    state = torch.load(tmp_path / "run.out", weights_only=True)
    for key in PARTS:
        assert_equal(saved[key], state[key], key)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", [{"type": "SGD", "args": {"lr": 0.1}}, {"type": "Adafactor", "args": {}}])
def test_fused_kernels_are_chosen_where_sharded_weights_have_them(tmp_path: Path, optimizer: dict[str, Any]) -> None:
    config = sharded(config_of(tmp_path / "run", optimizer=optimizer, trainer__limit_batches=2))
    errors = run(config, 2)
    assert ("optimizer.type: Adafactor" in errors) == (optimizer["type"] == "Adafactor"), errors
    if optimizer["type"] == "SGD":
        assert newest(the_run(config))["optimizer"]["param_groups"][0]["fused"] is not True
