"""What is asked of a table: its rows, its columns, and how they are split and encoded before anything is fitted."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from base.array_cache import KEY_LENGTH
from tables.choice import Chosen
from tables.coders import Coder
from tables.columns import Column
from tables.csv_cache import FORMAT
from tables.float32 import Rows
from tables.row_encoder import RowEncoder
from tables.source import TableSource
from tables.splits import Splits, split_rows


@dataclass(frozen=True)
class TableRequest:
    """What is read of a table, and how it is split; `fitted` are the facts of a model that is to be tested."""

    source: TableSource
    chosen: Chosen
    missing_values: list[str]
    test_split: float | int
    validation_split: float | int
    fitted: dict[str, Any] | None = None
    fold: str | None = None

    def key(self) -> str:
        """Return a name for the converted table."""
        columns = self.fitted or [self.chosen, self.missing_values, self.validation_split]
        how = (columns, self.test_split, self.chosen.group, self.chosen.time, *([self.fold] if self.fold else []))
        text = repr((FORMAT, self.source.key(), *how))
        return sha256(text.encode(errors="surrogatepass")).hexdigest()[:KEY_LENGTH]

    @property
    def is_drawn(self) -> bool:
        """Whether the splits are drawn by chance."""
        return self.chosen.group is None and self.chosen.time is None and self.fold is None

    @property
    def extra(self) -> list[Column]:
        """The columns that only the split needs."""
        return [column for column in (self.chosen.group, self.chosen.time) if column is not None]

    @property
    def num_targets(self) -> int:
        """The number of columns that are targets."""
        return len(self.chosen.targets)

    def encoder(self) -> RowEncoder:
        """Return what encodes the columns: features, targets, and what the split needs."""
        chosen, extra = self.chosen, self.extra
        if self.fitted is None:
            return RowEncoder([*chosen.features, *chosen.targets, *extra], self.missing_values, grows=True)
        fitted = RowEncoder.from_facts(self.fitted, with_targets=True)
        raw = RowEncoder([*fitted.columns, *extra], self.fitted["missing_values"])
        if chosen.group is not None:
            raw.coders[len(fitted.columns)].grows = True
        return raw

    def split(self, raw: RowEncoder, matrix: Rows) -> Splits:
        """Return the splits of the rows of a matrix that `raw` encoded."""
        chosen, groups, times = self.chosen, None, None
        if chosen.group is not None:
            groups = _ordered(raw.coders[-1], matrix[:, -1])
        if chosen.time is not None and chosen.time.kind == "number":
            times = matrix[:, -1].astype(np.float64)
        elif chosen.time is not None:
            times = matrix[:, -4:].astype(np.float64) @ np.array([86400.0, 3600.0, 60.0, 1.0])
        classes = None
        if chosen.is_class and self.fold is not None and self.fitted is None:
            at = sum(column.width for column in raw.columns[: len(chosen.features)])
            classes = _ordered(raw.coders[len(chosen.features)], matrix[:, at])
        return split_rows(len(matrix), self.test_split, self.validation_split, groups, times, self.fold, classes)


def _ordered(coder: Coder, codes: Rows) -> NDArray[np.int64]:
    """Return the place of each code, (N,), in the order of the labels: codes are as they came, by whichever thread."""
    position = np.argsort(np.argsort(list(coder.codes)))
    return position[codes.astype(np.int64)].astype(np.int64)
