"""Converts parsed columns to float32, and finds the digits that are lost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import types

from tables.csv_mistakes import BLANKS, FLOAT32_END, is_finite_float32

EXACT_END = 2.0**24  # up to here float32 holds all integers; float64 holds them up to 2**53
MIN_STEPS = 2.0**10  # of float32 between the smallest and the largest number of a column; with fewer, it warns

Rows = NDArray[np.float32]
Bounds = NDArray[np.float64]
"""(3, columns): for each column the smallest number times -1, the largest, and the largest change by float32."""


class FiniteNumbers:
    """Columns of which every cell is a finite float32."""

    def arrow_options(self, columns: list[str]) -> dict[str, Any]:
        """Return pyarrow's options: no text stands for a missing value."""
        return {"types": ["float64"] * len(columns), "null_values": []}

    def rows(self, table: pa.Table | pa.RecordBatch) -> tuple[Rows, Bounds]:
        """Return the columns in float32. Raises ArrowInvalid where a number is not finite in it."""
        return as_rows(table)

    def mistake(self, name: str, text: str) -> str | None:
        """Return that the cell is no finite float32, or None."""
        return None if is_finite_float32(text) else f"{text!r:.80} is not a finite number"


def as_rows(table: pa.Table | pa.RecordBatch) -> tuple[Rows, Bounds]:
    """Return the columns, of numbers or text, in float32. Raises ArrowInvalid where a number is not finite in it."""
    rows = np.empty((table.num_rows, table.num_columns), dtype=np.float32)
    bounds = np.full((3, table.num_columns), -np.inf)
    for i, column in enumerate(table.columns if table.num_rows else []):
        if types.is_string(column.type):
            column = _numbers_in(column)
        values = column.to_numpy(zero_copy_only=False)
        low, high = float(values.min()), float(values.max())
        largest = max(-low, high)
        if not largest < FLOAT32_END:
            raise pa.ArrowInvalid("holds what is not a finite number")
        rows[:, i] = values
        lost = 0.0
        if largest > EXACT_END or largest / EXACT_END * MIN_STEPS > high - low:  # else float32 is fine enough
            lost = float(np.abs(values - rows[:, i]).max())
        if largest >= 2.0**53:
            lost = max(lost, float(np.spacing(largest)) / 2)
        bounds[:, i] = -low, high, lost
    return rows, bounds


def _numbers_in(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the numbers that pyarrow's CSV reader makes of the same texts. Raises ArrowInvalid where it does."""
    import pyarrow.compute as pc  # takes 8 MB, which training does without

    return pc.cast(pc.ascii_trim(texts, BLANKS), pa.float64())


def lost_digits(columns: list[str], bounds: Bounds) -> Iterator[str]:
    """Yield a warning for each column whose large integers, or small differences, float32 cannot represent."""
    for name, low, high, lost in zip(columns, -bounds[0], bounds[1], bounds[2]):
        if lost > 0 and (max(-low, high) > EXACT_END or lost * MIN_STEPS > high - low > 0):
            yield (
                f"column {name!r}: its numbers, from {low:.15g} to {high:.15g}, are moved by up to {lost:.3g} in "
                f"float32; subtract an origin from them, or name the features without it"
            )
