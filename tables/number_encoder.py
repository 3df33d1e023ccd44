"""The numbers of new rows, as the features of a model that was trained on numeric columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch
from pyarrow import types
from torch import Tensor

from tables.csv_mistakes import is_finite_float32
from tables.float32 import FiniteNumbers
from utils import DataError, nearest
from utils.errors import printable


class NumberEncoder(FiniteNumbers):
    """The columns `names` as (N, F) float32, in their order; what they hold is as in a file or in memory."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)

    def encode_rows(self, table: pa.Table) -> tuple[Tensor, dict[int, str]]:
        """Return (N, F) float32, and what is wrong by row, counted from 0, as "column 'x': 'a' is not a finite number".

        Raises DataError where the table lacks a column or has it twice, or its type is none of numbers or text.
        """
        rows = np.empty((table.num_rows, len(self.names)), np.float32)
        check_names(self.names, table.schema.names)
        with np.errstate(over="ignore"):  # what becomes infinite is found below
            for i, name in enumerate(self.names):
                rows[:, i] = _numbers(table.column(name), name)
        mistakes: dict[int, str] = {}
        if not np.isfinite(rows).all():
            for row, i in np.argwhere(~np.isfinite(rows)).tolist():
                value = table.column(self.names[i])[row].as_py()
                came = "a null" if value is None else f"{printable(value, length=80)!r}"
                mistakes.setdefault(row, f"column {self.names[i]!r}: {came} is not a finite number")
        return torch.from_numpy(rows), mistakes


def check_names(wanted: Sequence[str], there: Sequence[str]) -> None:
    """Raise DataError unless each wanted column is there, once."""
    for name in wanted:
        if name not in there:
            raise DataError(f"has no column {name!r}; {nearest(name, there)}")
        if list(there).count(name) > 1:
            raise DataError(f"has {list(there).count(name)} columns called {name!r}")


def _numbers(column: pa.ChunkedArray, name: str) -> np.ndarray:
    """Return the numbers of a column, NaN where there is none."""
    kind = column.type
    if types.is_string(kind) or types.is_large_string(kind):
        texts = column.to_pylist()
        return np.array([float(text) if text and is_finite_float32(text) else np.nan for text in texts])
    if not (types.is_integer(kind) or types.is_floating(kind) or types.is_null(kind)):
        raise DataError(f"column {name!r} is {kind}; integers and floats are allowed")
    return column.to_numpy(zero_copy_only=False).astype(np.float64, copy=False)
