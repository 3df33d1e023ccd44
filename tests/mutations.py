"""Makes wrong configs of right ones: each with the path of its mistake and, for a misspelling, what was meant."""

from __future__ import annotations

import random
from collections.abc import Iterator
from copy import deepcopy
from typing import Any, NamedTuple

from utils.nested import flatten


class Mutant(NamedTuple):
    """A config with one mistake."""

    kind: str
    config: dict[str, Any]
    path: str  # where the mistake must be reported
    meant: str | None  # the name that must be suggested


REQUIRED = (
    "name",
    "arch",
    "data_loader",
    "optimizer",
    "loss",
    "trainer",
    "trainer.epochs",
    "arch.type",
    "optimizer.type",
)
OUT_OF_RANGE = {
    "trainer.epochs": 0,
    "trainer.save_period": -1,
    "trainer.verbosity": 7,
    "seed": -1,
    "n_gpu": -1,
    "data_loader.args.batch_size": 0,
    "data_loader.args.validation_split": 1.5,
    "data_loader.args.test_split": -0.1,
    "data_loader.args.num_workers": -2,
    "arch.args.dropout": 2,
    "trainer.monitor": "least val_loss",
    "name": "../up",
    "device": "gpu",
}
FREE_TEXT = ("name", "data_dir", "path", "target", "save_dir", "lr_lambda", "delimiter")


def mutants(config: dict[str, Any], generator: random.Random) -> Iterator[Mutant]:
    """Yield mutants of a right config: misspelt, missing, extra, of a wrong type, out of range, wrongly nested."""
    leaves = flatten(config)
    leaves = {path: value for path, value in leaves.items() if not path.endswith("]")}
    for path in leaves:
        *parents, last = path.split(".")
        if "lr_lambda" not in path and len(last) > 1:
            wrong = misspell(last, generator)
            yield Mutant("misspelt key", renamed(config, path, wrong), ".".join([*parents, wrong]), last)
    for path, value in leaves.items():
        if path.split(".")[-1] == "type":
            yield Mutant("misspelt type", changed(config, path, misspell(value, generator)), path, value)
        elif path.split(".")[-1] not in FREE_TEXT and path != "trainer.monitor":
            wrong_type: Any = "text" if not isinstance(value, str | list) else 5 if path == "loss" else {"a": 1}
            yield Mutant("wrong type", changed(config, path, wrong_type), path, None)
    for path in (path for path in REQUIRED if path in config or path in leaves):
        yield Mutant("missing", removed(config, path), path, None)
    for path, value in OUT_OF_RANGE.items():
        if path in leaves:
            yield Mutant("out of range", changed(config, path, value), path, None)
    for section in ("arch", "data_loader", "optimizer", "trainer"):
        yield Mutant("extra", changed(config, f"{section}.zzz", 1), f"{section}.zzz", None)
        yield Mutant("nested", changed(config, section, [config[section]]), section, None)
        yield Mutant("nested", changed(config, f"trainer.{section}", config[section]), f"trainer.{section}", None)


def misspell(name: str, generator: random.Random) -> str:
    """Return `name` with two letters swapped, one doubled, or one left out; never `name` itself."""
    at = generator.randrange(len(name) - 1)
    choices = [
        name[:at] + name[at + 1] + name[at] + name[at + 2 :],
        name[: at + 1] + name[at:],
        name[:at] + name[at + 1 :],
    ]
    return next(choice for choice in generator.sample(choices, 3) if choice != name)


def changed(config: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return a copy of `config` with the value at `path` replaced."""
    copy, node, last = _descend(config, path)
    node[last] = deepcopy(value)
    return copy


def removed(config: dict[str, Any], path: str) -> dict[str, Any]:
    """Return a copy of `config` without the key at `path`."""
    copy, node, last = _descend(config, path)
    del node[last]
    return copy


def renamed(config: dict[str, Any], path: str, name: str) -> dict[str, Any]:
    """Return a copy of `config` with the key at `path` called `name`."""
    copy, node, last = _descend(config, path)
    node[name] = node.pop(last)
    return copy


def _descend(config: dict[str, Any], path: str) -> tuple[dict[str, Any], dict[str, Any], str]:
    copy = deepcopy(config)
    *parents, last = path.replace("[", ".").replace("]", "").split(".")
    node: Any = copy
    for parent in parents:
        node = node[int(parent) if isinstance(node, list) else parent]
    return copy, node, last
