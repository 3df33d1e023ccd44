"""Where the rows of a table come from: its columns, a sample of it, and encoded blocks of its rows."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from tables.float32 import Rows
from tables.row_encoder import RowEncoder
from utils import DataError, nearest

logger = logging.getLogger("data")


class TableSource(ABC):
    """The rows of a table, in their order."""

    path: str
    notes: list[str]  # what `blocks` and `rows` warned of
    _left_out: list[int]  # by `rows`

    @property
    @abstractmethod
    def names(self) -> list[str]:
        """The columns. Raises DataError."""

    @property
    @abstractmethod
    def num_bytes(self) -> int:
        """The size of the files."""

    @abstractmethod
    def num_rows(self) -> int:
        """About how many rows there are."""

    @abstractmethod
    def key(self) -> str:
        """Return a text that differs where the files, or how they are read, do."""

    @abstractmethod
    def sample(self) -> pa.Table:
        """Return the first rows, as text or typed."""

    @abstractmethod
    def blocks(self, encoder: RowEncoder) -> Iterator[Rows]:
        """Yield all rows, encoded, (n, F) float32. Raises DataError with row and column."""

    @abstractmethod
    def place_of(self, index: int) -> str:
        """Return where the row is that is at `index` of all, as "row 7"."""

    def rows(self, encoder: RowEncoder) -> Iterator[Rows]:
        """Yield what `blocks` does, without the rows that lack a value of a column whose policy is "drop".

        Warns of how many these are. Raises DataError where they are all.
        """
        starts = np.cumsum([0, *(column.width for column in encoder.columns)])
        needed = [start for start, column in zip(starts, encoder.columns) if column.missing == "drop"]
        self._left_out, num_rows = [], 0
        for rows in self.blocks(encoder):
            is_gap = np.isnan(rows[:, needed]).any(axis=1)
            self._left_out += (np.flatnonzero(is_gap) + num_rows).tolist()
            num_rows += len(rows)
            yield rows[~is_gap] if is_gap.any() else rows
        if self._left_out:
            note = f"{self.path}: {len(self._left_out):,} of {num_rows:,} rows have no target, and are left out"
            if len(self._left_out) == num_rows:
                raise DataError(note)
            logger.warning(note)
            self.notes = [*self.notes, note]

    def place(self, index: int) -> str:
        """Return where the row is that is at `index` of those that `rows` yielded."""
        for left_out in self._left_out:
            index += left_out <= index
        return self.place_of(index)

    def check(self, columns: list[str]) -> None:
        """Raise DataError where a column is missing or appears twice."""
        for name in columns:
            if self.names.count(name) != 1:
                found = self.names.count(name) or "no"
                raise DataError(f"{self.path}: has {found} column {name!r}; {nearest(name, self.names)}")

    def close(self) -> None:
        """Delete temporary files."""
