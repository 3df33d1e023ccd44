"""A config that would train, and give wrong numbers or have no effect without a word: refused, or told."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import toy
from helpers import write_given
from parse_config import Slot
from parse_config.type_check import type_problem
from toy_runs import parsed, small_config
from utils import ConfigError
from utils.annotations import PositiveInt, annotations_of

if TYPE_CHECKING:
    from nowhere import Unknown


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    """Return the toy's config."""
    return small_config(tmp_path / "saved")


def refusal(config: dict[str, Any]) -> str:
    """Return why `config` is refused."""
    with pytest.raises(ConfigError) as caught:
        parsed(config)
    return str(caught.value)


# Names of metrics: each value of the log has one of its own.


@pytest.mark.parametrize(
    "name",
    [
        *("loss", "lr", "perf", "kind", "epoch", "global_step", "stretched_loss"),
        *("val_loss", "val_accuracy", "val_", "val_val_accuracy"),
    ],
)
def test_a_metric_cannot_have_the_name_of_another_value(name: str, config: dict[str, Any]) -> None:
    config["metrics"] = ["accuracy", {"type": "top_k", "name": name}]
    assert f"metrics: {name!r} is the name of another value in the logs" in refusal(config)


@pytest.mark.parametrize("name", ["losses", "value", "lr_", "Epoch", "top_k", "valid_accuracy", "accuracy_val"])
def test_a_metric_may_have_any_other_name(name: str, config: dict[str, Any]) -> None:
    config["metrics"] = ["accuracy", {"type": "top_k", "name": name}]
    parsed(config)


# Weights of classes.


@pytest.mark.parametrize("name", ["weight", "pos_weight"])
@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        ([1, -1, 1], "-1 is not a weight"),
        ([-0.5, 1, 1], "-0.5 is not a weight"),
        ([1, 1e39, 1], "1e+39 is not a weight"),
        ([1, 10**60, 1], "is not a weight"),
        ([0, 0, 0], "no class has a weight above 0"),
        ([0.0, -0.0], "no class has a weight above 0"),
        ([], "no class has a weight above 0"),
    ],
)
def test_weights_of_classes_are_not_negative_nor_all_zero(
    weights: list[float], reason: str, name: str, config: dict[str, Any]
) -> None:
    kind = "CrossEntropyLoss" if name == "weight" else "BCEWithLogitsLoss"
    config["loss"] = {"type": kind, "args": {name: weights}}
    assert refusal(config).startswith(f"loss.args.{name}: ")
    assert reason in refusal(config)


def test_a_class_may_be_ignored_by_a_weight_of_0(config: dict[str, Any]) -> None:
    config["loss"] = {"type": "CrossEntropyLoss", "args": {"weight": [0, 1, 2.5]}}
    assert parsed(config).init_obj("loss").weight.tolist() == [0, 1, 2.5]


# Arguments of libraries, whatever their annotations are made of.


@pytest.mark.parametrize(
    ("kind", "args"),
    [
        ("MultiStepLR", {"milestones": ["1", "2"]}),
        ("MultiStepLR", {"milestones": [1, "2"]}),
        ("MultiStepLR", {"milestones": [1.5]}),
        ("MultiStepLR", {"milestones": [[1]]}),
        ("MultiStepLR", {"milestones": [True]}),
        ("MultiStepLR", {"milestones": 1}),
        ("MultiStepLR", {"milestones": "12"}),
        ("MultiStepLR", {"milestones": [1], "gamma": "0.1"}),
        ("CyclicLR", {"base_lr": "0.1", "max_lr": 1}),
        ("CyclicLR", {"base_lr": 0.1, "max_lr": 1, "mode": "round"}),
        ("CyclicLR", {"base_lr": 0.1, "max_lr": 1, "cycle_momentum": "no"}),
        ("CyclicLR", {"base_lr": ["0.1"], "max_lr": 1}),
        ("LambdaLR", {"lr_lambda": "1", "last_epoch": "3"}),
        ("StepLR", {"step_size": "3"}),
        ("OneCycleLR", {"max_lr": 1, "total_steps": "3"}),
    ],
)
def test_arguments_of_a_schedule_are_checked(kind: str, args: dict[str, Any], config: dict[str, Any]) -> None:
    wrong = list(args)[-1] if kind != "CyclicLR" or len(args) > 2 else "base_lr"
    assert refusal(config | {"lr_scheduler": {"type": kind, "args": args}}).startswith(f"lr_scheduler.args.{wrong}: ")


def test_arguments_of_a_metric_that_is_made_by_its_task_are_checked(config: dict[str, Any]) -> None:
    args = {"task": "multiclas", "num_classes": "3", "top_k": 1.5}
    lines = refusal(config | {"metrics": [{"type": "Accuracy", "args": args}]}).splitlines()
    assert [line.split(": ")[0] for line in lines] == [f"metrics[0].args.{name}" for name in args]


@pytest.mark.parametrize("key", ["optimizer", "lr_scheduler", "loss", "metrics"])
def test_every_argument_of_a_library_has_an_annotation_that_is_checked(key: str) -> None:
    slot = toy.SLOTS[key]
    assert isinstance(slot, Slot)
    unchecked = {
        (name, argument)
        for name, obj in slot.types()
        for argument in slot.parameters(obj)
        if type_problem(annotations_of(obj).get(argument), {"no": object.__name__}) is None
    }
    known = {("LinearCrossEntropyLoss", "device"), ("LinearCrossEntropyLoss", "dtype")}  # torch annotates neither
    known |= {("LinearCrossEntropyLoss", "options"), ("PermutationInvariantTraining", "metric_func")}  # objects
    known |= {(name, "lr_lambda") for name in ("LambdaLR", "MultiplicativeLR")} | {
        ("CyclicLR", "scale_fn")
    }  # functions
    assert unchecked <= known


def test_an_annotation_for_type_checkers_alone_leaves_the_others_checked() -> None:
    def function(width: PositiveInt, other: Unknown) -> None: ...

    assert annotations_of(function) == {"width": PositiveInt, "return": type(None)}
    assert inspect.signature(function).parameters.keys() == {"width", "other"}


# Learning rates, at every epoch or step that is sure to come.


@pytest.mark.parametrize(
    ("scheduler", "at"),
    [
        ({"type": "LambdaLR", "args": {"lr_lambda": "1 - epoch / 2"}}, 3),
        ({"type": "LambdaLR", "args": {"lr_lambda": ["1 - epoch / 2", "1"]}}, 3),
        (
            {"type": "LambdaLR", "args": {"lr_lambda": {"type": "inverse_decay", "args": {"rate": 1, "offset": 0}}}},
            None,
        ),
        ({"type": "MultiplicativeLR", "args": {"lr_lambda": "epoch - 3.5"}}, 1),
        ({"type": "StepLR", "args": {"step_size": 2, "gamma": -1}}, 2),
        ({"type": "MultiStepLR", "args": {"milestones": [3], "gamma": -0.1}}, 3),
        ({"type": "ExponentialLR", "args": {"gamma": -0.5}}, 1),
        ({"type": "ExponentialLR", "args": {"gamma": 1e200}}, 2),
        ({"type": "CosineAnnealingLR", "args": {"T_max": 3, "eta_min": -1}}, 1),
        ({"type": "CosineAnnealingWarmRestarts", "args": {"T_0": 5, "eta_min": -1}}, 1),
        ({"type": "CyclicLR", "args": {"base_lr": -1, "max_lr": 1, "cycle_momentum": False}}, 0),
        ({"type": "LinearLR", "args": {"start_factor": 1, "end_factor": 0, "total_iters": 2}}, None),
        ({"type": "PolynomialLR", "args": {"total_iters": 3}}, None),
        ({"type": "CosineAnnealingLR", "args": {"T_max": 2}}, None),
        ({"type": "LambdaLR", "args": {"lr_lambda": "max(0, 1 - epoch / 2)"}}, None),
        ({"type": "LambdaLR", "args": {"lr_lambda": "1 - epoch / 5.5"}}, None),  # negative after the last
        ({"type": "LambdaLR", "interval": "step", "args": {"lr_lambda": "1 - step / 20"}}, 21),
        ({"type": "LambdaLR", "interval": "step", "args": {"lr_lambda": "1 - step / 30"}}, None),
        ({"type": "ExponentialLR", "interval": "step", "args": {"gamma": 1e30}}, 11),
        ({"type": "ReduceLROnPlateau"}, None),
        (None, None),
    ],
    ids=lambda value: json.dumps(value)[:90],
)
def test_a_rate_is_never_negative_nor_infinite(
    scheduler: dict[str, Any] | None, at: int | None, config: dict[str, Any]
) -> None:
    config["trainer"] |= {"epochs": 6, "len_epoch": 5}
    config["lr_scheduler"] = scheduler
    if at is None:
        parsed(config)
    else:
        assert ": the learning rate is [" in refusal(config)
        assert f"] at {at}; it must be 0 or more" in refusal(config)


@pytest.mark.parametrize(
    ("scheduler", "reason"),
    [
        ({"type": "LambdaLR", "args": {"lr_lambda": "1 / (6 - epoch)"}}, "lr_lambda: LambdaLR fails at 6: "),
        ({"type": "LambdaLR", "args": {"lr_lambda": "1 / (7 - epoch)"}}, None),
        ({"type": "MultiplicativeLR", "args": {"lr_lambda": "1 / (4 - epoch)"}}, "MultiplicativeLR fails at 4: "),
        (
            {"type": "LambdaLR", "interval": "step", "args": {"lr_lambda": "1 / (10 - step)"}},
            "LambdaLR fails at 10: '1 / (10 - step)' at step = 10: ",
        ),
        ({"type": "OneCycleLR", "args": {"max_lr": 1, "total_steps": 4}}, "OneCycleLR fails at 5: "),
        ({"type": "OneCycleLR", "interval": "step", "args": {"max_lr": 1, "total_steps": 29}}, "fails at 30: "),
        ({"type": "OneCycleLR", "interval": "step", "args": {"max_lr": 1, "total_steps": 30}}, None),
        ({"type": "CyclicLR", "args": {"base_lr": 0.1, "max_lr": 1, "scale_fn": "x"}}, "refuses them"),
    ],
    ids=lambda value: json.dumps(value)[:90],
)
def test_a_schedule_holds_over_the_whole_run(
    scheduler: dict[str, Any], reason: str | None, config: dict[str, Any]
) -> None:
    config["optimizer"] = {"type": "SGD", "args": {"lr": 0.1, "momentum": 0.9}}
    config["trainer"] |= {"epochs": 6, "len_epoch": 5}
    config["lr_scheduler"] = scheduler
    if reason is None:
        parsed(config)
    else:
        assert reason in refusal(config)


def test_steps_that_a_debugging_run_does_not_make_are_not_tried(config: dict[str, Any]) -> None:
    config["trainer"] |= {"epochs": 2, "len_epoch": 10, "limit_batches": 3}
    config["lr_scheduler"] = {"type": "LambdaLR", "interval": "step", "args": {"lr_lambda": "1 / (7 - step)"}}
    parsed(config)
    assert "fails at 7" in refusal(config | {"trainer": config["trainer"] | {"limit_batches": 4}})


# What has no effect is told.


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"trainer__monitor": "off"}, "trainer.early_stop: 10 has no effect, as trainer.monitor is off"),
        ({"trainer__monitor": "off", "trainer__early_stop": 0}, None),
        ({"trainer__monitor": "off", "trainer__early_stop": None}, None),
        ({"lr_scheduler__args__milestones": [1, 2]}, "[2] are never reached: trainer.epochs is 2"),
        ({"lr_scheduler__args__milestones": [1]}, None),
        ({"lr_scheduler__args__milestones": [1], "lr_scheduler__interval": "step"}, None),
        ({"lr_scheduler__args__milestones": [5, 9], "lr_scheduler__interval": "step"}, None),
        ({"lr_scheduler__args__milestones": [1, 0]}, "[1, 0] do not increase"),
        ({"lr_scheduler__args__milestones": [1, 1]}, "[1, 1] do not increase"),
    ],
    ids=str,
)
def test_what_has_no_effect_is_told(
    changes: dict[str, Any], expected: str | None, config: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    config["lr_scheduler"] = {"type": "MultiStepLR", "args": {"milestones": [1]}}
    path = write_given(config)
    toy.parse_args(
        [
            "-c",
            path,
            *(
                part
                for key, value in changes.items()
                for part in ("--set", f"{key.replace('__', '.')}={json.dumps(value)}")
            ),
        ]
    )
    told = [record.getMessage() for record in caplog.records if record.name == "config"]
    assert len(told) == (expected is not None)
    assert all(expected in line for line in told if expected)
