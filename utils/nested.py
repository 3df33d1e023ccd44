"""The one walk over nested values: tensors in dicts, lists, tuples; and what may be one object, or several by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

from utils.errors import ConfigError


def map_tensors(function: Callable[[Tensor], Any], value: Any) -> Any:
    """Return a copy of `value` with `function` applied to every tensor in it; strings, None and others stay."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, dict):  # copied, not built again: a Counter would count the pairs
        copy = value.copy()
        for key in copy:
            copy[key] = map_tensors(function, copy[key])
        return copy
    if isinstance(value, list | tuple):
        items = (map_tensors(function, item) for item in value)
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)  # a namedtuple has _fields
    return value


def tensors_of(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in `value`, in their order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from tensors_of(item)


def describe(value: Any) -> str:
    """Return dtype and shape of every tensor in `value`, as in "float32 [64, 1, 28, 28]", for people to read."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {describe(item)}" for key, item in value.items())
    if not isinstance(value, list | tuple):
        return type(value).__name__
    items = [describe(item) for item in value]
    is_alike = len(items) > 1 and len(set(items)) == 1 and not isinstance(value[0], Tensor)
    return f"{len(items)} {items[0]}" if is_alike else ", ".join(items)


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested dicts by their paths, as in "metrics[0].args.k"; an empty dict is no leaf.

    A list is a leaf, unless there is a dict in it.
    """
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            leaves |= flatten(value, f"{prefix}{key}.")
        elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
            for index, item in enumerate(value):
                leaves |= flatten({f"{key}[{index}]": item}, prefix)
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


def first_key(path: str) -> str:
    """Return the first key of a path: "metrics" of "metrics[0].args.k"."""
    return re.split(r"[.\[]", path, maxsplit=1)[0]


def with_brackets(path: str) -> str:
    """Return a path as messages have it: "metrics[0].args.k" for "metrics.0.args.k"."""
    return re.sub(r"\.(\d+)(?=[.\[]|$)", r"[\1]", path)


class Models(nn.ModuleDict):
    """Several models by name, whose parameters are called "generator.layers.0.weight" and so on."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Raise ConfigError: only the project knows which of them makes the outputs of a batch."""
        raise ConfigError(
            f"arch: there are several models ({', '.join(self)}); validation, test, prediction and export need one: "
            "say which in trainer/batch.py: predict_batch"
        )


def by_name(value: Any) -> dict[str, Any]:
    """Return several objects, a dict or Models, by their names; a single one by the name "", and none of None."""
    if value is None:
        return {}
    return dict(value.items()) if isinstance(value, dict | Models) else {"": value}


def unnamed(named: dict[str, Any]) -> Any:
    """Return what `by_name` took apart: the one object whose name is "", or else the dict of several."""
    return named.get("", named)
