"""Turns rows of a table, text or typed, into rows of float32; built from a checkpoint's facts, also for new rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from tables.coders import Coder
from tables.columns import Column
from tables.csv_mistakes import BLANKS, is_finite_float32
from tables.float32 import Bounds, Rows
from utils import DataError, nearest

TableFacts = Mapping[str, Any]
"""What a TableDataLoader's `facts()["table"]` holds: lists of columns (see Column), `columns` and `targets`, and the
list `missing_values`."""


class RowEncoder:
    """The encoding of the columns of a table as one matrix (N, F), float32, in their order.

    A number is itself; a bool 0 or 1; a category its code, 0 for one that is rare or was not in the training split; a
    date its parts; what is missing NaN. TableEncoder (model/table_encoder.py) fills gaps, scales, and expands codes.
    """

    def __init__(self, columns: Sequence[Column], missing_values: Iterable[str], grows: bool = False) -> None:
        """With `grows`, labels are coded as they come, for a table whose columns are not fitted yet."""
        self.columns = list(columns)
        self.coders = [Coder(column, missing_values, grows) for column in columns]
        spelled = sorted({value.strip(BLANKS) for value in missing_values})
        self.missing_values = [blank + value + end for value in spelled for blank in ("", " ") for end in ("", " ")]
        self._mistakes: dict[tuple[Coder, str], str | None] = {}

    @classmethod
    def from_facts(cls, table: TableFacts, with_targets: bool = False) -> RowEncoder:
        """Return the encoder of the features, and `with_targets` of the targets behind them, of a trained model."""
        columns = [*table["columns"], *(table["targets"] if with_targets else [])]
        return cls([Column(**column) for column in columns], table["missing_values"])

    @property
    def names(self) -> list[str]:
        """The columns that a table must have; one may be encoded in several ways."""
        return list(dict.fromkeys(column.name for column in self.columns))

    @property
    def width(self) -> int:
        """F, the number of columns of the matrix."""
        return sum(column.width for column in self.columns)

    def encode(self, table: pa.Table | pa.RecordBatch) -> Tensor:
        """Return the rows of a table, whose columns are found by name, as (N, F) float32.

        Cells are text, as in a CSV file, or typed, as in a Parquet file. Raises DataError where a column is missing, or
        at the first row that `encode_rows` finds wrong, which counts from 0.
        """
        rows, mistakes = self.encode_rows(table)
        for row in sorted(mistakes):
            raise DataError(f"row {row}, {mistakes[row]}")
        return rows

    def encode_rows(self, table: pa.Table | pa.RecordBatch) -> tuple[Tensor, dict[int, str]]:
        """Return (N, F) float32, and what is wrong by row, counted from 0, as "column 'age': 'x' is not ...".

        A row is wrong where a cell is not of its column's kind, or missing where the policy is "error"; its numbers
        mean nothing. A category that the training split does not have is not wrong. Raises DataError where the table
        lacks a column, or has two of a name.
        """
        names = table.schema.names
        for name in self.names:
            if names.count(name) != 1:
                raise DataError(f"has {names.count(name) or 'no'} column {name!r}; {nearest(name, names)}")
        rows, mistakes, _ = self._encoded({name: table.column(name) for name in self.names}, False)
        return torch.from_numpy(rows), mistakes

    # What CsvReader calls.

    def arrow_options(self, columns: list[str]) -> dict[str, Any]:
        """Return how pyarrow reads the columns of a CSV file, in their order, and which texts are no numbers."""
        text = pa.dictionary(pa.int32(), pa.string())  # each different text of a block is decoded, and coded, once
        are_text = {column.name for column in self.columns if column.kind != "number"}
        types = [text if name in are_text else pa.float64() for name in columns]
        return {"types": types, "null_values": self.missing_values}

    def rows(self, table: pa.Table | pa.RecordBatch) -> tuple[Rows, Bounds]:
        """Return the columns, which are in the order of this encoder's. Raises ArrowInvalid where one is wrong."""
        rows, mistakes, bounds = self._encoded(dict(zip(self.names, table.columns)), True)
        if mistakes:
            raise pa.ArrowInvalid(next(iter(mistakes.values())))
        return rows, bounds

    def mistake(self, name: str, text: str) -> str | None:
        """Return what is wrong with a cell of a CSV file, or None."""
        text = text.strip(BLANKS)
        for coder in (coder for coder in self.coders if coder.column.name == name):
            if coder.column.kind == "number" and is_finite_float32(text) and text not in coder.missing_values:
                continue
            if coder.column.has_labels and "\ufffd" in text:  # what Python reads where bytes are not UTF-8
                return f"{text!r:.80} is not UTF-8; give the file's `encoding`"
            if coder.column.has_labels and coder.grows and text not in coder.missing_values:
                continue
            found = self._mistakes.get((coder, text), "")
            if found == "":
                is_wrong = self._is_mistake(coder, *coder(pa.array([text]))[1:])[0]
                found = self._mistakes[coder, text] = self._told(coder, text) if is_wrong else None
            if found is not None:
                return found
        return None

    def _encoded(self, cells: dict[str, Any], nan_is_wrong: bool) -> tuple[Rows, dict[int, str], Bounds]:
        num_rows = len(next(iter(cells.values())))
        rows = np.empty((num_rows, self.width), np.float32)
        bounds: Bounds = np.full((3, len(cells)), -np.inf)
        places = {name: i for i, name in enumerate(cells)}
        mistakes: dict[int, str] = {}
        start = 0
        for coder in self.coders:
            column, values = coder.column, cells[coder.column.name]
            coded = coder(values, nan_is_wrong)
            part = rows[:, start : start + column.width]
            part[:] = coded.values
            if column.kind == "number" and num_rows:
                bounds[:, places[column.name]] = _bounds(coded.values, part)
            for row in np.flatnonzero(self._is_mistake(coder, coded.is_missing, coded.is_wrong)).tolist():
                mistakes.setdefault(row, f"column {column.name!r}: {self._told(coder, values[row].as_py())}")
            start += column.width
        return rows, mistakes, bounds

    @staticmethod
    def _is_mistake(coder: Coder, is_missing: NDArray[np.bool_], is_wrong: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return is_wrong | is_missing if coder.column.missing == "error" else is_wrong

    @staticmethod
    def _told(coder: Coder, cell: object) -> str:
        shown = "a null" if cell is None else f"{str(cell)!r:.80}"
        if cell is None or str(cell).strip(BLANKS) in coder.missing_values:
            hint = "give its column a policy, `missing`, for them; of a target, give `missing_target`"
            return f"{shown} is a missing value; {hint}"
        return f"{shown} is not {coder.expected()}"


def _bounds(values: NDArray[np.float64], rounded: Rows) -> NDArray[np.float64]:
    """Return the smallest number times -1, the largest, and the largest change by float32; -inf where there is none."""
    with np.errstate(invalid="ignore"):
        lost = np.fmax.reduce(np.abs(values - rounded), axis=None, initial=-np.inf)
        ends = np.fmax.reduce(-values, axis=None, initial=-np.inf), np.fmax.reduce(values, axis=None, initial=-np.inf)
    return np.array([*ends, lost])
