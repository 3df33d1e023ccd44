"""A slot finds what its packages define, refuses everything else with the nearest name, and checks arguments."""

from __future__ import annotations

import pickle
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer
from torchmetrics.classification import MulticlassAccuracy

import model.loss
from base import BaseModel
from model.lr_lambda import warmup_cosine
from model.metric import accuracy, top_k_acc
from model.model import MLP, MnistModel
from slots import SLOTS
from utils import ConfigError
from parse_config.slot import Slot

MODULE = """
import os
import pathlib
from os import system
from pathlib import Path
from abc import ABC, abstractmethod
from functools import partial


class Base: ...
class Concrete(Base): ...
class _Private(Base): ...
class Unrelated: ...
class Abstract(Base, ABC):
    @abstractmethod
    def run(self): ...
def function(outputs, targets, k=3, *, flag): ...
def _private(outputs, targets): ...
table = {"a": 1}
instance = Concrete()
bound = partial(function, 1)
"""


IMPORTED = ("os", "pathlib", "system", "Path", "ABC", "partial")
NOT_OFFERED = ("Base", "_Private", "Unrelated", "Abstract", "_private", "table", "instance", "bound")
NOT_A_NAME: tuple[Any, ...] = (
    "missing",
    "os.system",
    "Concrete.__init__",
    "__builtins__",
    "__name__",
    "",
    None,
    3,
    ["Concrete"],
    {},
)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write a module with all that a name may stand for; return its name."""
    (tmp_path / "slot_example.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "slot_example", raising=False)
    return "slot_example"


def slot_of(package: str, num_inputs: int | None = 2) -> Slot:
    """Return a slot of classes and functions of `package`."""
    return Slot((package,), base=__import__(package).Base, num_inputs=num_inputs)


def error_of(slot: Slot, name: Any) -> str:
    """Return the message with which `slot` refuses `name`."""
    with pytest.raises(ConfigError) as caught:
        slot.find(name, "arch.type")
    return str(caught.value)


@pytest.mark.parametrize(
    ("slot", "name", "expected"),
    [
        ("arch", "MnistModel", MnistModel),
        ("arch", "MLP", MLP),
        ("optimizer", "Adam", torch.optim.Adam),
        ("loss", "nll_loss", model.loss.nll_loss),
        ("loss", "CrossEntropyLoss", nn.CrossEntropyLoss),
        ("metrics", "accuracy", accuracy),
        ("metrics", "MulticlassAccuracy", MulticlassAccuracy),
        ("lr_scheduler", "StepLR", torch.optim.lr_scheduler.StepLR),
        ("lr_lambda", "warmup_cosine", warmup_cosine),
    ],
)
def test_the_projects_slots_find_its_own_names_and_the_libraries(slot: str, name: str, expected: Any) -> None:
    assert SLOTS[slot].find(name, slot) is expected


@pytest.mark.parametrize(
    ("slot", "name"),
    [
        ("arch", "BaseModel"),
        ("arch", "BaseDataLoader"),
        ("arch", "ConfigError"),
        ("arch", "torch"),
        ("arch", "F"),
        ("optimizer", "Optimizer"),
        ("optimizer", "lr_scheduler"),
        ("optimizer", "Adam.step"),
        ("loss", "F"),
        ("loss", "Tensor"),
        ("loss", "Module"),
        ("metrics", "Tensor"),
        ("lr_scheduler", "Optimizer"),
        ("lr_lambda", "math"),
    ],
)
def test_what_a_module_only_imports_or_derives_from_is_refused(slot: str, name: str) -> None:
    assert error_of(SLOTS[slot], name).startswith(f"arch.type: unknown type {name!r}; ")


@pytest.mark.parametrize("name", ["Concrete", "function"])
def test_what_a_package_defines_is_found(package: str, name: str) -> None:
    assert slot_of(package).find(name, "arch.type") is getattr(sys.modules[package], name)


@pytest.mark.parametrize("name", [*IMPORTED, *NOT_OFFERED, *NOT_A_NAME])
def test_everything_else_that_a_name_may_stand_for_is_refused(package: str, name: Any) -> None:
    assert error_of(slot_of(package), name).startswith(f"arch.type: unknown type {name!r}; ")


def test_a_slot_without_functions_or_without_classes_finds_none(package: str) -> None:
    assert error_of(slot_of(package, num_inputs=None), "function").endswith("allowed: Concrete")
    assert error_of(Slot((package,), num_inputs=1), "Concrete").endswith("allowed: function")


def test_a_package_whose_name_merely_begins_alike_is_another(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slot_ex.py").write_text("from slot_example import Concrete, function\n")
    monkeypatch.delitem(sys.modules, "slot_ex", raising=False)
    slot = Slot(("slot_ex",), base=__import__(package).Base, num_inputs=2)
    assert error_of(slot, "Concrete").endswith("nothing is allowed here")


def test_the_first_package_that_defines_a_name_wins(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slot_first.py").write_text("def function(outputs, targets): ...\nConcrete = None\n")
    monkeypatch.delitem(sys.modules, "slot_first", raising=False)
    slot = Slot(("slot_first", package), base=__import__(package).Base, num_inputs=2)
    assert slot.find("function", "").__module__ == "slot_first"
    assert slot.find("Concrete", "").__module__ == package


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("Concret", "did you mean 'Concrete'?"),
        ("concrete", "did you mean 'Concrete'?"),
        ("functoin", "did you mean 'function'?"),
        ("zzz", "allowed: Concrete, function"),
    ],
)
def test_the_error_ends_with_the_nearest_name_or_with_all(package: str, name: str, hint: str) -> None:
    assert error_of(slot_of(package), name) == f"arch.type: unknown type {name!r}; {hint}"


def test_a_package_is_imported_only_when_a_name_is_looked_up(package: str) -> None:
    slot = Slot((package,), num_inputs=2)
    assert package not in sys.modules
    slot.find("function", "")
    assert package in sys.modules


@pytest.mark.parametrize(
    ("slot", "obj", "args", "expected"),
    [
        ("optimizer", torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}, []),
        ("optimizer", torch.optim.SGD, {"lrr": 0.1}, ["a.lrr: unknown argument of SGD; did you mean 'lr'?"]),
        ("optimizer", torch.optim.SGD, {"params": []}, ["a.params: is given by the code and cannot stand in a config"]),
        ("arch", MLP, {"hidden": [8]}, ["a.in_features: missing; MLP needs it"]),
        ("arch", MLP, {}, ["a.in_features: missing; MLP needs it", "a.hidden: missing; MLP needs it"]),
        ("arch", MLP, {"in_features": 1, "hidden": []}, []),
        ("metrics", top_k_acc, {}, []),
        ("metrics", top_k_acc, {"k": 5}, []),
        ("metrics", top_k_acc, {"targets": 1}, ["a.targets: is given by the code and cannot stand in a config"]),
        ("metrics", accuracy, {"k": 5}, ["a.k: unknown argument of accuracy; nothing is allowed here"]),
        ("metrics", MulticlassAccuracy, {"num_classes": 3}, []),
        (
            "lr_lambda",
            warmup_cosine,
            {"warmup": 1, "steps": 2},
            [
                "a.steps: unknown argument of warmup_cosine; allowed: final, total, warmup",
                "a.total: missing; warmup_cosine needs it",
            ],
        ),
    ],
)
def test_arguments_are_checked_against_the_signature(
    slot: str, obj: Any, args: dict[str, Any], expected: list[str]
) -> None:
    assert list(SLOTS[slot].problems(obj, args, "a")) == expected


def test_keyword_only_arguments_count_and_any_keyword_fits_kwargs(package: str) -> None:
    slot = slot_of(package)
    assert list(slot.problems(sys.modules[package].function, {}, "a")) == ["a.flag: missing; function needs it"]

    def open_ended(outputs: Any, targets: Any, **kwargs: Any) -> None: ...

    assert list(slot.problems(open_ended, {"anything": 1}, "a")) == []


def test_arguments_without_problems_build_the_object() -> None:
    slot, args = SLOTS["optimizer"], {"lr": 0.1, "weight_decay": 0.01}
    optimizer_class = slot.find("AdamW", "")
    assert list(slot.problems(optimizer_class, args, "a")) == []
    optimizer = partial(optimizer_class, **args)([nn.Parameter(torch.zeros(1))])
    assert isinstance(optimizer, Optimizer)
    assert optimizer.param_groups[0]["weight_decay"] == 0.01


def test_a_slot_is_frozen_data() -> None:
    slot = SLOTS["arch"]
    assert pickle.loads(pickle.dumps(slot)) == slot == Slot(("model.model",), base=BaseModel)
    with pytest.raises(AttributeError):
        slot.packages = ("os",)  # type: ignore[misc]
