"""Checks a value of the config against the type annotation of the argument that it is for."""

from __future__ import annotations

import json
import typing
from collections.abc import Callable, Iterator
from typing import Any

import pydantic
import torch

from utils.annotations import annotations_of
from utils.errors import nearest


def type_problem(annotation: Any, value: Any) -> str | None:
    """Return why `value`, as JSON holds it, does not fit `annotation`, or None where it fits or cannot be checked."""
    if isinstance(value, dict | list | str) and annotation is not str and _takes(annotation, Callable):
        return None  # lr_lambda, which has a check of its own
    if is_tensor_list(annotation, value):
        return None
    try:
        adapter = pydantic.TypeAdapter(annotation, config={"arbitrary_types_allowed": True, "strict": True})
        checked = adapter.validate_json(json.dumps(value))  # in JSON a list may stand for a tuple, and 1 for 1.0
        list(checked if isinstance(checked, Iterator) else ())  # an Iterable is checked as it is read
    except pydantic.ValidationError as error:
        messages = [item["msg"] for item in error.errors() if "isinstance" not in item["msg"]]  # Tensor alternatives
        choices = [str(choice) for choice in typing.get_args(annotation)]
        if typing.get_origin(annotation) is typing.Literal:
            return f"{value!r:.80} is not allowed; {nearest(str(value), choices)}"
        return f"{' or '.join(dict.fromkeys(messages)) or 'of the wrong type'}; got {value!r:.80}"
    except (pydantic.errors.PydanticUserError, TypeError, NameError):
        return None
    return None


def is_tensor_list(annotation: Any, value: Any) -> bool:
    """Whether `value` is a list of numbers for an argument that takes a tensor, such as the weights of classes."""
    is_tensor = _takes(annotation, torch.Tensor) and not _takes(annotation, float)  # no list for an lr
    return is_tensor and is_number_list(value)


def is_number_list(value: Any) -> bool:
    """Whether `value` is a list of numbers alone; True and False are none."""
    return isinstance(value, list) and all(type(item) in (int, float) for item in value)


def with_tensors(obj: Callable[..., Any], args: dict[str, Any]) -> dict[str, Any]:
    """Return `args` with float32 tensors in the place of lists of numbers where `obj` takes tensors."""
    annotations = annotations_of(obj)
    return {
        name: torch.tensor(value, dtype=torch.float32) if is_tensor_list(annotations.get(name), value) else value
        for name, value in args.items()
    }


def _takes(annotation: Any, kind: Any) -> bool:
    origin = typing.get_origin(annotation)
    if annotation is kind or origin is kind or (kind is Callable and origin is typing.get_origin(Callable[..., Any])):
        return True
    return origin is not None and origin is not tuple and any(_takes(arg, kind) for arg in typing.get_args(annotation))
