"""Fine-tuning: a resnet18 that is frozen in part and killed where it thaws, and thawing in several processes."""

from __future__ import annotations

import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision import models

from base import BaseTrainer
from checkpoint.file import load_checkpoint
from faults import (
    assert_same_run,
    exit_code,
    finish,
    signal_once,
    small_config,
    the_run,
    whole_run,
    write_config,
)
from helpers import newest, records_of
from processes import finish_all, start_all

THAWED = {"freeze": ["conv*", "fc1.bias"], "unfreeze_at": {"2": ["conv2.*"]}}
NUM_STEPS = 3  # an epoch of the resnet18


def run_by(num: int, config: dict[str, Any]) -> Path:
    """Train `config` by so many processes; return its run directory."""
    assert finish_all(num, "-c", write_config(config)) == [0] * num
    return the_run(config)


def test_thawing_in_two_processes_is_that_of_one(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"arch__args__dropout": 0.0, "data_loader__args__batch_size": 50, "fine_tune": THAWED}
    changes["optimizer"] = {"type": "SGD", "args": {"lr": 0.05, "momentum": 0.9}}
    one, two = (run_by(num, small_config(tmp_path / str(num), **changes)) for num in (1, 2))
    first, last = (load_checkpoint(two / f"checkpoint-epoch{epoch}.pth")["model"] for epoch in (1, 3))
    for name, value in first.items():
        assert torch.equal(value, last[name]) == name.startswith(("conv1", "fc1.bias")), name
    expected, got = (torch.cat([w.flatten() for w in newest(run)["model"].values()]) for run in (one, two))
    assert (got - expected).norm() <= 1e-6 * expected.norm()
    for before, after in zip(records_of(one), records_of(two)):
        assert after["loss"] == pytest.approx(before["loss"], rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("virtual_ranks", [None, pytest.param(4, marks=pytest.mark.slow)])
def test_three_processes_that_are_killed_after_thawing_go_on_to_the_bit(
    virtual_ranks: int | None, tmp_path: Path
) -> None:
    changes: dict[str, Any] = {"trainer__epochs": 2, "trainer__virtual_ranks": virtual_ranks, "fine_tune": THAWED}
    changes["trainer__save_every_steps"] = 1
    expected = run_by(3, small_config(tmp_path / "whole", **changes))
    config = small_config(tmp_path / "killed", **changes)
    setup = partial(signal_once, BaseTrainer, "_save_if_due", signal.SIGKILL, 9)
    killed = start_all(3, "-c", write_config(config), setup=setup, stderr=tmp_path / "errors.txt")
    assert 0 not in [exit_code(process) for process in killed]
    assert finish_all(3, "-r", str(the_run(config))) == [0] * 3
    assert_same_run(expected, the_run(config))


def test_thawing_goes_with_neither_a_graph_nor_shards(tmp_path: Path) -> None:
    config = small_config(tmp_path / "run", fine_tune=THAWED, trainer__strategy={"type": "fsdp"})
    stderr = tmp_path / "errors.txt"
    processes = start_all(2, "-c", write_config(config), stderr=stderr)
    assert [exit_code(process) for process in processes] == [2, 2]
    said = "".join(stderr.with_suffix(f".{number}").read_text() for number in range(2))
    assert said.count("fine_tune.unfreeze_at: does not go with fsdp") == 1


@pytest.mark.slow
def test_frozen_weights_that_are_sharded_stay(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"fine_tune": {"freeze": ["conv*"]}, "trainer__ema_decay": None}
    changes |= {"trainer__epochs": 1, "trainer__strategy": {"type": "fsdp"}, "trainer__channels_last": False}
    run_dir = run_by(2, small_config(tmp_path / "run", **changes))
    config = small_config(tmp_path / "alone", **changes)
    alone = run_by(1, config)
    for name, value in newest(run_dir)["model"].items():
        assert torch.equal(value, newest(alone)["model"][name]) == name.startswith("conv"), name


def resnet_config(save_dir: Path, weights: Path) -> dict[str, Any]:
    """Return the config of a resnet18 on the digits whose layer3 thaws in epoch 3."""
    args = {"name": "resnet18", "in_channels": 1, "weights": str(weights)}
    fine_tune = {"freeze": ["layer[123].*"], "unfreeze_at": {"3": ["layer3.*"]}}
    config = small_config(save_dir, arch={"type": "TorchvisionModel", "args": args}, fine_tune=fine_tune)
    config["loss"] = "cross_entropy"
    config["data_loader"]["args"]["batch_size"] = 8
    config["trainer"] |= {"epochs": 4, "len_epoch": NUM_STEPS, "save_every_steps": 1, "grad_accum_steps": 1}
    config["trainer"] |= {"keep_checkpoints": None, "early_stop": 0}
    return config


@pytest.mark.slow
def test_a_resnet_that_is_killed_at_every_step_around_its_thawing_goes_on_to_the_bit(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source, weights = models.resnet18().state_dict(), tmp_path / "resnet18.pth"
    torch.save(source, weights)
    expected = whole_run(resnet_config(tmp_path / "whole", weights))
    states = [load_checkpoint(expected / f"checkpoint-epoch{epoch}.pth")["model"] for epoch in (2, 4)]
    for name, value in source.items():
        if name.startswith(("layer1", "layer2", "layer3")):
            assert torch.equal(states[0][name], value), name
            assert torch.equal(states[1][name], value) == (not name.startswith("layer3")), name
    for step in range(2 * NUM_STEPS - 3, 2 * NUM_STEPS + 4):
        config = resnet_config(tmp_path / f"killed{step}", weights)
        setup = partial(signal_once, BaseTrainer, "_save_if_due", signal.SIGKILL, step)
        assert finish("-c", write_config(config), setup=setup) == -signal.SIGKILL
        assert finish("-r", str(the_run(config))) == 0
        assert_same_run(expected, the_run(config))
