"""Schedules of schedules, and parameter groups by pattern: checked, tried, built, and resumed exactly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LinearLR, LRScheduler, SequentialLR

import toy
from base import param_groups
from helpers import epochs_of, newest
from parse_config import ConfigParser
from toy_runs import assert_exact_at, parsed, small_config, train
from utils import ConfigError

LINEAR = {"type": "LinearLR", "args": {"start_factor": 0.1, "total_iters": 2}}
COSINE = {"type": "CosineAnnealingLR", "args": {"T_max": 9}}
EXPRESSION = {"type": "LambdaLR", "args": {"lr_lambda": "0.9 ** step"}}


def sequential(*schedulers: Any, milestones: list[int], interval: str = "epoch") -> dict[str, Any]:
    """Return the section of a SequentialLR."""
    args = {"schedulers": [*schedulers], "milestones": milestones}
    return {"type": "SequentialLR", "interval": interval, "args": args}


def built(config: dict[str, Any]) -> tuple[Optimizer, LRScheduler]:
    """Return optimizer and scheduler of a config, on the toy's model."""
    parser = parsed(config)
    optimizer = parser.init_obj("optimizer", params=param_groups(toy.ToyNet(), parser["optimizer"]))
    return optimizer, parser.init_obj("lr_scheduler", optimizer=optimizer)


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    """Return the toy's config."""
    return small_config(tmp_path / "saved")


def refusal(config: dict[str, Any]) -> str:
    """Return why `config` is refused."""
    with pytest.raises(ConfigError) as caught:
        parsed(config)
    return str(caught.value)


def test_a_schedule_of_schedules_is_the_one_that_torch_builds(config: dict[str, Any]) -> None:
    config["lr_scheduler"] = sequential(LINEAR, COSINE, EXPRESSION, milestones=[2, 8], interval="step")
    config["trainer"] |= {"epochs": 3}
    optimizer, scheduler = built(config)
    twin = SGD([nn.Parameter(torch.zeros(1))], lr=0.01)
    inner = [LinearLR(twin, 0.1, total_iters=2), CosineAnnealingLR(twin, 9), LambdaLR(twin, lambda step: 0.9**step)]
    expected = SequentialLR(twin, inner, [2, 8])
    for _ in range(15):
        assert optimizer.param_groups[0]["lr"] == twin.param_groups[0]["lr"]
        optimizer.step()
        twin.step()
        scheduler.step()
        expected.step()


@pytest.mark.parametrize(
    ("scheduler", "reason"),
    [
        (sequential(LINEAR, COSINE, milestones=[]), "SequentialLR refuses them: Sequential Schedulers expects"),
        (sequential(LINEAR, {"type": "ReduceLROnPlateau"}, milestones=[1]), "does not support `ReduceLROnPlateau`"),
        (sequential(LINEAR, {"type": "CosineAnnealingLR", "args": {"T_max": 0}}, milestones=[1]), "fails at 1"),
        (sequential(LINEAR, EXPRESSION, milestones=[1]), "schedulers[1].args.lr_lambda: '0.9 ** step': unknown name"),
        (
            sequential(LINEAR, EXPRESSION | {"args": {"lr_lambda": "1 - step"}}, milestones=[3], interval="step"),
            "the learning rate is [-0.01] at 5",
        ),
        (
            {"type": "StepLR", "args": {"schedulers": [LINEAR], "step_size": 1}},
            "unknown argument of StepLR",
        ),
        ({"type": "ChainedScheduler", "args": {"schedulers": []}}, "ChainedScheduler refuses them"),
    ],
    ids=lambda value: json.dumps(value)[:60],
)
def test_a_schedule_of_schedules_is_tried_before_the_run(
    scheduler: dict[str, Any], reason: str, config: dict[str, Any]
) -> None:
    config["trainer"] |= {"epochs": 3, "len_epoch": 4}
    assert reason in refusal(config | {"lr_scheduler": scheduler})


@pytest.mark.parametrize(
    ("inner", "milestone", "reason"),
    [
        ({"type": "OneCycleLR", "args": {"max_lr": 0.01, "total_steps": 9}}, 2, "total_steps: 9, but the run makes 10"),
        ({"type": "LambdaLR", "args": {"lr_lambda": "1 / (9 - step)"}}, 3, "lr_lambda: .* at step = 9"),
    ],
)
def test_an_inner_schedule_must_last_as_long_as_it_is_used(
    inner: dict[str, Any], milestone: int, reason: str, config: dict[str, Any]
) -> None:
    config["lr_scheduler"] = sequential(LINEAR, inner, milestones=[milestone], interval="step")
    with pytest.raises(ConfigError, match=rf"lr_scheduler.args.schedulers\[1\].args.{reason}"):
        train(config)


@pytest.mark.parametrize("interval", ["epoch", "step"])
def test_a_run_that_stops_at_a_milestone_is_exact(interval: str, tmp_path: Path) -> None:
    milestones, places = ([1, 3], (5, 6, 7)) if interval == "epoch" else ([4, 11], (3, 4, 11))
    inner = {"type": "LambdaLR", "args": {"lr_lambda": f"0.9 ** {interval}"}}
    schedule = sequential(LINEAR, COSINE, inner, milestones=milestones, interval=interval)
    run_dir = assert_exact_at(places, tmp_path, lr_scheduler=schedule, trainer__epochs=4, trainer__early_stop=None)
    assert len(newest(run_dir)["lr_scheduler"]["_schedulers"]) == 3


# Parameter groups.


def test_groups_by_pattern_take_what_no_group_before_has(config: dict[str, Any]) -> None:
    groups = [{"match": "hidden.*", "lr": 0.001}, {"match": "*.bias", "weight_decay": 0, "betas": [0.5, 0.9]}]
    config["optimizer"] = {"type": "AdamW", "args": {"lr": 0.01, "weight_decay": 0.1, "params": groups}}
    config["lr_scheduler"] = None
    optimizer, _ = built(config)
    model = toy.ToyNet()
    names = [["hidden.weight", "hidden.bias"], ["norm.bias", "head.bias"], ["norm.weight", "head.weight"]]
    for group, expected in zip(optimizer.param_groups, names, strict=True):
        shapes = [dict(model.named_parameters())[name].shape for name in expected]
        assert [parameter.shape for parameter in group["params"]] == shapes
    options = [(group["lr"], group["weight_decay"], tuple(group["betas"])) for group in optimizer.param_groups]
    assert options == [(0.001, 0.1, (0.9, 0.999)), (0.01, 0, (0.5, 0.9)), (0.01, 0.1, (0.9, 0.999))]


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("hiden.weight", "matches no trainable parameter; did you mean 'hidden.weight'"),
        ("head.bias", "matches no trainable parameter; earlier groups have all"),
    ],
)
def test_a_pattern_that_matches_nothing_is_refused(pattern: str, reason: str, config: dict[str, Any]) -> None:
    config["optimizer"]["args"]["params"] = [{"match": "head.*", "lr": 0.1}, {"match": pattern}]
    with pytest.raises(ConfigError, match=rf"optimizer.args.params\[1\].match: '{pattern}' {reason}"):
        train(config)
    assert not list(Path(config["trainer"]["save_dir"]).glob("*/*"))


@pytest.mark.parametrize(
    "scheduler",
    [
        {"type": "OneCycleLR", "args": {"max_lr": [0.1, 0.01], "total_steps": 2}},
        {"type": "OneCycleLR", "args": {"max_lr": 0.1, "total_steps": 2}},
        {"type": "LambdaLR", "args": {"lr_lambda": ["1", "0.9 ** epoch"]}},
        {"type": "ReduceLROnPlateau", "args": {"min_lr": [0.001, 0.0001]}},
        sequential(LINEAR, {"type": "LambdaLR", "args": {"lr_lambda": ["1", "0.9 ** epoch"]}}, milestones=[1]),
        {"type": "MultiStepLR", "args": {"milestones": [1, 2, 3]}},
    ],
    ids=lambda value: json.dumps(value)[:60],
)
def test_a_schedule_may_have_a_value_for_each_group(scheduler: dict[str, Any], config: dict[str, Any]) -> None:
    config["optimizer"]["args"]["params"] = [{"match": "head.*", "lr": 0.1, "betas": [0.8, 0.9]}]
    train(config | {"lr_scheduler": scheduler})


def test_values_for_other_groups_than_there_are_are_refused(config: dict[str, Any]) -> None:
    config["optimizer"]["args"]["params"] = [{"match": "head.*", "lr": 0.1}]
    config["lr_scheduler"] = {"type": "LambdaLR", "args": {"lr_lambda": ["1", "1", "1"]}}
    with pytest.raises(ConfigError, match="Expected 2 lr_lambdas, but got 3"):
        train(config)


def test_a_run_with_groups_is_exact(tmp_path: Path) -> None:
    groups = [{"match": "head.*", "lr": 0.1}, {"match": "*.bias", "weight_decay": 0}]
    run_dir = assert_exact_at([3, 6], tmp_path, optimizer__args__params=groups)
    assert len(newest(run_dir)["optimizer"]["param_groups"]) == 3
    assert len(epochs_of(run_dir)) == 2


def test_an_optimizer_of_a_table_without_groups_takes_none(config: dict[str, Any]) -> None:
    slots = toy.SLOTS | {"optimizer": toy.Slot(("torch.optim",), base=Optimizer, provided=("params",), required=True)}
    config["optimizer"]["args"]["params"] = [{"match": "head.*"}]
    with pytest.raises(ConfigError, match=r"optimizer.args.params: is given by the code"):
        ConfigParser(config, slots=slots)
