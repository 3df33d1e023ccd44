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

import toy
from parse_config import Slot
from toy import SLOTS, PriorNet, ToyNet, accuracy, inverse_decay, top_k
from utils import ConfigError

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


def slot(key: str) -> Slot:
    """Return one of the toy's slots."""
    found = SLOTS[key]
    assert isinstance(found, Slot)
    return found


@pytest.mark.parametrize(
    ("key", "name", "expected"),
    [
        ("arch", "ToyNet", ToyNet),
        ("arch", "narrow_net", toy.narrow_net),
        ("optimizer", "Adam", torch.optim.Adam),
        ("loss", "toy_loss", toy.toy_loss),
        ("loss", "CrossEntropyLoss", nn.CrossEntropyLoss),
        ("metrics", "accuracy", accuracy),
        ("metrics", "MulticlassAccuracy", MulticlassAccuracy),
        ("lr_scheduler", "StepLR", torch.optim.lr_scheduler.StepLR),
        ("lr_lambda", "inverse_decay", inverse_decay),
    ],
)
def test_a_projects_slots_find_its_own_names_and_the_libraries(key: str, name: str, expected: Any) -> None:
    assert slot(key).find(name, key) is expected


@pytest.mark.parametrize(
    ("key", "name", "reason"),
    [
        ("arch", "BaseModel", "toy.BaseModel is defined in base.base_model; only what toy itself defines can be named"),
        ("arch", "Linear", "allowed: PriorNet, ToyNet, narrow_net"),
        ("arch", "torch", "allowed: PriorNet, ToyNet, narrow_net"),
        ("arch", "SampleLoader", "toy.SampleLoader is not a subclass of Module"),
        ("arch", "_make_data", "toy._make_data is private"),
        ("arch", "toy_loss", "toy.toy_loss is a function whose annotation does not say that it returns a Module"),
        ("arch", "ToyNett", "did you mean 'ToyNet'?"),
        ("data_loader", "BaseDataLoader", "only what toy itself defines can be named"),
        ("data_loader", "narrow_net", "toy.narrow_net is a function; a class is wanted"),
        ("optimizer", "Optimizer", "torch.optim.Optimizer is abstract: a subclass is missing"),
        ("optimizer", "LBFGS", "torch.optim.LBFGS is excluded in slots.py"),
        ("optimizer", "lr_scheduler", "allowed: "),
        ("optimizer", "Adam.step", "did you mean 'Adam'?"),
        ("loss", "F", "allowed: "),
        ("loss", "Tensor", "toy.Tensor is defined in torch; only what toy itself defines can be named"),
        ("loss", "TripletMarginLoss", "takes 3 inputs; it gets 2, as its slot in slots.py says"),
        ("metrics", "ToyTrainer", "toy.ToyTrainer is not a subclass of Module"),
        ("lr_lambda", "ToyNet", "toy.ToyNet is a class; a function is wanted"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_reason(key: str, name: str, reason: str) -> None:
    message = error_of(slot(key), name)
    assert message.startswith(f"arch.type: unknown type {name!r}; ")
    assert reason in message


@pytest.mark.parametrize("name", ["Concrete", "function"])
def test_what_a_package_defines_is_found(package: str, name: str) -> None:
    assert slot_of(package).find(name, "arch.type") is getattr(sys.modules[package], name)


@pytest.mark.parametrize("name", [*IMPORTED, *NOT_OFFERED, *NOT_A_NAME])
def test_everything_else_that_a_name_may_stand_for_is_refused(package: str, name: Any) -> None:
    assert error_of(slot_of(package), name).startswith(f"arch.type: unknown type {name!r}; ")


def test_a_slot_without_functions_or_without_classes_finds_none(package: str) -> None:
    assert error_of(slot_of(package, num_inputs=None), "function").endswith("is a function; a class is wanted")
    assert error_of(Slot((package,), num_inputs=1), "Concrete").endswith("is a class; a function is wanted")


def test_a_package_whose_name_merely_begins_alike_is_another(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slot_ex.py").write_text("from slot_example import Concrete, function\n")
    monkeypatch.delitem(sys.modules, "slot_ex", raising=False)
    slot = Slot(("slot_ex",), base=__import__(package).Base, num_inputs=2)
    reason = "slot_ex.Concrete is defined in slot_example; only what slot_ex itself defines can be named"
    assert error_of(slot, "Concrete").endswith(reason)
    assert error_of(slot, "nothing").endswith("nothing is allowed here")


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


def test_an_abstract_class_is_refused_with_what_it_lacks(package: str) -> None:
    assert error_of(slot_of(package), "Abstract").endswith("slot_example.Abstract is abstract: run is missing")
    metrics = Slot(("torchmetrics",), base=nn.Module, num_inputs=2)
    assert error_of(metrics, "Metric").endswith("torchmetrics.Metric is abstract: compute, update is missing")


def test_a_package_is_imported_only_when_a_name_is_looked_up(package: str) -> None:
    slot = Slot((package,), num_inputs=2)
    assert package not in sys.modules
    slot.find("function", "")
    assert package in sys.modules


GIVEN = "if the code gives it, raise num_inputs in slots.py"


@pytest.mark.parametrize(
    ("key", "obj", "args", "expected"),
    [
        ("optimizer", torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}, []),
        ("optimizer", torch.optim.SGD, {"lrr": 0.1}, ["a.lrr: unknown argument of SGD; did you mean 'lr'?"]),
        (
            "optimizer",
            torch.optim.SGD,
            {"params": [{"match": "*", "momentun": 0.9}]},
            ["a.params[0].momentun: unknown argument of SGD; did you mean 'momentum'?"],
        ),
        ("arch", PriorNet, {"width": 8}, ["a.class_counts: missing; PriorNet needs it"]),
        ("arch", ToyNet, {}, []),
        ("arch", toy.narrow_net, {"width": 3}, []),
        ("arch", toy.narrow_net, {"widht": 3}, ["a.widht: unknown argument of narrow_net; did you mean 'width'?"]),
        ("arch", toy.narrow_net, {"width": 0}, ["a.width: Input should be greater than or equal to 1; got 0"]),
        ("metrics", top_k, {}, []),
        ("metrics", top_k, {"k": 5}, []),
        ("metrics", top_k, {"targets": 1}, ["a.targets: is given by the code and cannot be set in a config"]),
        ("metrics", accuracy, {"k": 5}, ["a.k: unknown argument of accuracy; nothing is allowed here"]),
        ("metrics", MulticlassAccuracy, {"num_classes": 3}, []),
        (
            "lr_lambda",
            inverse_decay,
            {"offset": 1, "steps": 2},
            [
                "a.steps: unknown argument of inverse_decay; allowed: offset, rate",
                f"a.rate: missing; inverse_decay needs it; {GIVEN}",
            ],
        ),
    ],
)
def test_arguments_are_checked_against_the_signature(
    key: str, obj: Any, args: dict[str, Any], expected: list[str]
) -> None:
    assert list(slot(key).problems(obj, args, "a")) == expected


def test_keyword_only_arguments_count_and_any_keyword_fits_kwargs(package: str) -> None:
    slot = slot_of(package)
    missing = f"a.flag: missing; function needs it; {GIVEN}"
    assert list(slot.problems(sys.modules[package].function, {}, "a")) == [missing]

    def open_ended(outputs: Any, targets: Any, **kwargs: Any) -> None: ...

    assert list(slot.problems(open_ended, {"anything": 1}, "a")) == []


def test_arguments_without_problems_build_the_object() -> None:
    args = {"lr": 0.1, "weight_decay": 0.01}
    optimizer_class = slot("optimizer").find("AdamW", "")
    assert list(slot("optimizer").problems(optimizer_class, args, "a")) == []
    optimizer = partial(optimizer_class, **args)([nn.Parameter(torch.zeros(1))])
    assert isinstance(optimizer, Optimizer)
    assert optimizer.param_groups[0]["weight_decay"] == 0.01


def test_a_slot_is_frozen_data() -> None:
    arch = Slot(("toy",), base=nn.Module)
    assert pickle.loads(pickle.dumps(arch)) == arch == Slot(("toy",), base=nn.Module)
    with pytest.raises(AttributeError):
        arch.packages = ("os",)  # type: ignore[misc]


# A folder of files: "zoo.*" is all of them.


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Slot:
    """Write a package of several files; return the slot of all of them."""
    (tmp_path / "zoo").mkdir()
    files = {
        "__init__": "from zoo.birds import Owl\n\nfrom torch import nn\n\n\nclass Hidden(nn.Module): ...\n",
        "birds": "from torch import nn\n\n\nclass Owl(nn.Module): ...\n",
        "fish": "from torch import nn\nfrom zoo.birds import Owl\n\n\nclass Cod(nn.Module): ...\n"
        "def shoal(size: int = 3) -> nn.Module: return Cod()\ndef count(size): return size\n",
        "broken": "raise ImportError('not installed')\n\n\nclass Dodo: ...\n",
    }
    for name, text in files.items():
        (tmp_path / "zoo" / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.split(".")[0] == "zoo"]:
        monkeypatch.delitem(sys.modules, name)
    return Slot(("zoo.*",), base=nn.Module, factories=True)


def test_a_type_is_found_in_whatever_file_of_a_folder_defines_it(zoo: Slot) -> None:
    for name, file in (("Owl", "birds"), ("Cod", "fish"), ("shoal", "fish")):
        assert zoo.find(name, "arch.type").__module__ == f"zoo.{file}"
    assert "zoo.broken" not in sys.modules  # only the files that define the name are imported


def test_a_name_that_two_files_define_is_refused(zoo: Slot, tmp_path: Path) -> None:
    (tmp_path / "zoo" / "night.py").write_text("from torch import nn\n\n\nclass Owl(nn.Module): ...\n")
    with pytest.raises(ConfigError) as caught:
        zoo.find("Owl", "arch.type")
    expected = "arch.type: zoo.birds and zoo.night both define 'Owl'; give one of them another name"
    assert str(caught.value) == expected


def test_a_name_that_another_file_of_the_folder_defines_is_refused_with_that_file(zoo: Slot) -> None:
    message = error_of(Slot(("zoo.fish",), base=nn.Module), "Dodo")
    assert message.endswith("zoo/broken.py defines it, but its slot in slots.py looks in zoo.fish")
    assert "zoo.broken" not in sys.modules


def test_a_file_that_does_not_import_breaks_only_what_it_defines(zoo: Slot) -> None:
    with pytest.raises(ImportError, match="not installed"):
        zoo.find("Dodo", "arch.type")


def test_what_a_folder_does_not_define_is_refused_with_the_reason(zoo: Slot, tmp_path: Path) -> None:
    (tmp_path / "zoo" / "broken.py").unlink()
    assert error_of(zoo, "count").endswith(
        "zoo.fish.count is a function whose annotation does not say that it returns a Module"
    )
    assert error_of(zoo, "nn").endswith("allowed: Cod, Owl, shoal")
    assert error_of(zoo, "Owll").endswith("did you mean 'Owl'?")
    assert {name for name, _ in zoo.types()} == {"Owl", "Cod", "shoal"}


def test_a_mistaken_name_is_reported_although_another_file_of_the_folder_does_not_import(zoo: Slot) -> None:
    assert error_of(zoo, "Owll").endswith("did you mean 'Owl'?")
