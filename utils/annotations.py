"""Types for the arguments that a config may give, which say what values make sense and what may change on resume."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from enum import Enum
from typing import Annotated, Any, Literal

import pydantic
from annotated_types import Ge, Gt, Interval


class Mark(Enum):
    """What else is to be known of a key or an argument, said where it is declared: `Annotated[int, MAY_CHANGE]`."""

    MAY_CHANGE = "another value on resume changes nothing of what is computed up to a given step"
    HAS_STATE = "its state is in the checkpoint: another value on resume would be lost or make no sense"
    OF_THE_LOOP = "the training loop must follow it: a trainer with a loop of its own may ignore it"


MAY_CHANGE, HAS_STATE, OF_THE_LOOP = Mark.MAY_CHANGE, Mark.HAS_STATE, Mark.OF_THE_LOOP

PositiveInt = Annotated[int, Ge(1)]
BatchSize = Annotated[
    PositiveInt,
    pydantic.BeforeValidator(
        lambda value: 1 if value == "auto" else value, json_schema_input_type=PositiveInt | Literal["auto"]
    ),
]
"""A number in the code; a config may say "auto", and the largest that fits is found before anything is built."""
NonNegativeInt = Annotated[int, Ge(0)]
PositiveFloat = Annotated[float, Gt(0)]
Probability = Annotated[float, Interval(ge=0, le=1)]
Share = Annotated[float, Interval(ge=0, lt=1)] | NonNegativeInt
"""A fraction of the samples, or a number of them."""
NumWorkers = Annotated[NonNegativeInt, MAY_CHANGE]
DataPath = Annotated[str, MAY_CHANGE]
"""Where data lies; a resumed run compares what is there, not its place."""


def annotations_of(obj: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations of the arguments of a function or class by name; {} where they cannot be resolved."""
    try:
        return typing.get_type_hints(obj.__init__ if inspect.isclass(obj) else obj, include_extras=True)
    except (NameError, TypeError, AttributeError):  # names that the library imports for type checkers only
        return {}
