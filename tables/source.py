"""Where the rows of a table come from: its columns, a sample of it, and encoded blocks of its rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import pyarrow as pa

from tables.float32 import Rows
from tables.row_encoder import RowEncoder
from utils import DataError, nearest


class TableSource(ABC):
    """The rows of a table, in their order."""

    path: str
    notes: list[str]  # what `blocks` warned of

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

    def check(self, columns: list[str]) -> None:
        """Raise DataError where a column is missing or appears twice."""
        for name in columns:
            if self.names.count(name) != 1:
                found = self.names.count(name) or "no"
                raise DataError(f"{self.path}: has {found} column {name!r}; {nearest(name, self.names)}")

    def close(self) -> None:
        """Delete temporary files."""
