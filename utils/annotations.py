"""Types for the arguments that a config may give, which say what values make sense and what may change on resume."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from enum import Enum
from types import SimpleNamespace
from typing import Annotated, Any, Literal

import pydantic
from annotated_types import Gt, Interval


class Mark(Enum):
    """What else is to be known of a key or an argument, said where it is declared: `Annotated[int, MAY_CHANGE]`."""

    MAY_CHANGE = "another value on resume changes nothing of what is computed up to a given step"
    HAS_STATE = "its state is in the checkpoint: another value on resume would be lost or make no sense"
    OF_THE_LOOP = "the training loop must follow it: a trainer with a loop of its own may ignore it"


MAY_CHANGE, HAS_STATE, OF_THE_LOOP = Mark.MAY_CHANGE, Mark.HAS_STATE, Mark.OF_THE_LOOP

MAX_COUNT = 10**9  # more is a slip of the keyboard, and overflows what it is multiplied with
PositiveInt = Annotated[int, Interval(ge=1, le=MAX_COUNT)]
BatchSize = Annotated[
    PositiveInt,
    pydantic.BeforeValidator(
        lambda value: 1 if value == "auto" else value, json_schema_input_type=PositiveInt | Literal["auto"]
    ),
]
"""A number in the code; a config may say "auto", and the largest that fits is found before anything is built."""
NonNegativeInt = Annotated[int, Interval(ge=0, le=MAX_COUNT)]
PositiveFloat = Annotated[float, Gt(0)]
Probability = Annotated[float, Interval(ge=0, le=1)]
Share = Annotated[float, Interval(ge=0, lt=1)] | NonNegativeInt
"""A fraction of the samples, or a number of them."""
Fold = Annotated[str, pydantic.Field(pattern=r"^[1-9][0-9]{0,3}/[1-9][0-9]{0,3}$")]
"""Of k-fold cross-validation: "2/5" is the second of five."""
NumWorkers = Annotated[int, Interval(ge=0, le=1024), MAY_CHANGE]
DataPath = Annotated[str, MAY_CHANGE]
"""Where data lies; a resumed run compares what is there, not its place."""

TYPING_ONLY = {"Callable": Callable, "Iterable": Iterable, "Sequence": Sequence}
"""What libraries, such as torch's schedulers, import for type checkers alone."""


def annotations_of(obj: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations of the arguments of a function or class by name; not those that cannot be resolved."""
    if inspect.isclass(obj):
        return _hints(obj.__new__) | _hints(obj.__init__)
    return _hints(obj)


def _hints(function: Any) -> dict[str, Any]:
    how: dict[str, Any] = {"localns": TYPING_ONLY, "include_extras": True}
    try:
        return typing.get_type_hints(function, **how)
    except (TypeError, AttributeError):
        return {}
    except NameError:  # one is of a name that is imported for type checkers alone: the others are as good as ever
        hints: dict[str, Any] = {}
        for name, hint in getattr(function, "__annotations__", {}).items():
            with suppress(NameError):
                stub = SimpleNamespace(__annotations__={name: hint})
                hints |= typing.get_type_hints(stub, globalns=function.__globals__, **how)
        return hints
