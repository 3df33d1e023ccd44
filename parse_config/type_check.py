"""Checks a value of the config against the type annotation of the argument that it is for."""

from __future__ import annotations

import json
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from enum import Enum
from numbers import Number
from types import NoneType, UnionType
from typing import Annotated, Any

import pydantic
import torch

from utils.annotations import annotations_of
from utils.errors import nearest

DTYPES = {name: value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}
LISTS = (list, tuple, Sequence, Collection, Iterable)


def type_problem(annotation: Any, value: Any) -> str | None:
    """Return why `value`, as JSON holds it, does not fit `annotation`, or None where it fits or cannot be checked."""
    if isinstance(value, dict | list | str) and annotation is not str and _takes(annotation, Callable):
        return None  # lr_lambda, which has a check of its own
    if is_tensor_list(annotation, value) or (type(value) in (int, float) and Number in _members(annotation)):
        return None
    if _is_dtype_name(annotation, value):
        return None if value in DTYPES else f"{value!r:.80} is no type of numbers; {nearest(value, DTYPES)}"
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


def from_json(obj: Callable[..., Any], args: dict[str, Any]) -> dict[str, Any]:
    """Return `args` with what JSON cannot hold where `obj` takes it: float32 tensors, dtypes and members of an Enum."""
    annotations = annotations_of(obj)
    return {name: _from_json(annotations.get(name), value) for name, value in args.items()}


def _from_json(annotation: Any, value: Any) -> Any:
    if is_tensor_list(annotation, value):
        return torch.tensor(value, dtype=torch.float32)
    if _is_dtype_name(annotation, value):
        return DTYPES[value]
    is_enum = isinstance(annotation, type) and issubclass(annotation, Enum)
    return annotation(value) if is_enum else value


def _is_dtype_name(annotation: Any, value: Any) -> bool:
    members = _members(annotation)
    return isinstance(value, str) and torch.dtype in members and str not in members


def _members(annotation: Any) -> list[Any]:
    """Return what a union is of; of any other annotation itself."""
    if typing.get_origin(annotation) is Annotated:
        return _members(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, UnionType):
        return [member for part in typing.get_args(annotation) for member in _members(part)]
    return [annotation]


def arity(annotation: Any) -> tuple[bool, bool]:
    """Return whether an argument that is annotated so takes one object, and whether a list of them."""
    members = [member for member in _members(annotation) if member is not NoneType]
    is_any = None in members or Any in members
    is_list = [(typing.get_origin(member) or member) in LISTS for member in members]
    return is_any or not all(is_list), is_any or any(is_list)


def _takes(annotation: Any, kind: Any) -> bool:
    origin = typing.get_origin(annotation)
    if annotation is kind or origin is kind or (kind is Callable and origin is typing.get_origin(Callable[..., Any])):
        return True
    return origin is not None and origin is not tuple and any(_takes(arg, kind) for arg in typing.get_args(annotation))
