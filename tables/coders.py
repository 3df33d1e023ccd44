"""Turns the cells of one column, text or typed, into the numbers that a table's matrix holds; column-wise, by Arrow."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import types

from tables.columns import Column
from tables.csv_mistakes import BLANKS, FLOAT32_END, NUMBER

TRUE, FALSE = {"true", "t", "yes", "y", "1"}, {"false", "f", "no", "n", "0"}
NUMBER_PATTERN = f"^(?:{NUMBER.pattern})$"
EXPECTED = {"number": "a finite number", "bool": "true or false, yes or no, 1 or 0", "class": "one of the labels"}
ZONED = re.compile(r"Z$|:.*[+-][0-9]{2}:?[0-9]{2}$")
DAY_US = 24 * 60 * 60 * 10**6


class Coded(NamedTuple):
    """A column of n rows as numbers."""

    values: NDArray[np.float64]  # (n, width); NaN where it is missing or wrong
    is_missing: NDArray[np.bool_]  # (n,)
    is_wrong: NDArray[np.bool_]  # (n,)


class Coder:
    """Codes one column. Its labels are those of the column; or, with `grows`, all that come, from 0 in any order."""

    def __init__(self, column: Column, missing_values: Iterable[str], grows: bool = False) -> None:
        self.column = column
        self.missing_values = frozenset(value.strip(BLANKS) for value in missing_values)
        self.grows = grows
        first = 1 if column.kind == "category" else 0
        self.codes = {} if grows else {label: code for code, label in enumerate(column.labels, start=first)}
        self._lock = threading.Lock()  # of `codes`, which several threads add to

    def __call__(self, cells: pa.ChunkedArray | pa.Array, nan_is_wrong: bool = False) -> Coded:
        """Return the cells as numbers; with `nan_is_wrong`, a NaN of a column of floats was text, and is no gap."""
        chunks = cells.chunks if isinstance(cells, pa.ChunkedArray) else [cells]
        is_number = self.column.kind == "number"
        parts = [self._numbers(chunk, nan_is_wrong) if is_number else self._texts(chunk) for chunk in chunks]
        if len(parts) == 1:
            return parts[0]
        empty = Coded(np.empty((0, self.column.width)), np.empty(0, bool), np.empty(0, bool))
        return Coded(*(np.concatenate(part) for part in zip(empty, *parts)))

    def expected(self) -> str:
        """Return what a good cell is, for a message."""
        if self.column.kind == "date":
            return f"a date {self.column.format or 'such as 2026-01-31 or 2026-01-31T12:00:00'}"
        if self.column.kind == "class" and not self.grows:
            labels = ", ".join(self.column.labels)
            return f"one of the labels: {labels if len(labels) < 200 else f'{labels[:200]} …'}"
        return EXPECTED.get(self.column.kind, "text in UTF-8")

    def _numbers(self, cells: pa.Array, nan_is_wrong: bool) -> Coded:
        is_text = not (types.is_integer(cells.type) or types.is_floating(cells.type) or types.is_decimal(cells.type))
        if is_text:
            text = pc.utf8_trim(_as_text(cells), BLANKS)
            cells = pc.if_else(self._is_gap(text), pa.scalar(None, text.type), text)
            is_number = pc.match_substring_regex(cells, NUMBER_PATTERN)
            values = pc.cast(pc.if_else(is_number, cells, pa.scalar(None, cells.type)), pa.float64())
        else:
            values = pc.cast(cells, pa.float64(), safe=False)
        numbers = values.to_numpy(zero_copy_only=False)
        with np.errstate(invalid="ignore"):
            is_wrong = ~(np.abs(numbers) < FLOAT32_END)
        is_missing = np.zeros(len(cells), bool)
        if cells.null_count or is_wrong.any():
            is_missing = cells.is_null(nan_is_null=not (is_text or nan_is_wrong)).to_numpy(zero_copy_only=False)
            is_wrong &= ~is_missing
            numbers = np.where(is_wrong, np.nan, numbers)
        return Coded(numbers[:, None], is_missing, is_wrong)

    def _texts(self, cells: pa.Array) -> Coded:
        """Code each different text once."""
        if types.is_temporal(cells.type) and self.column.kind == "date":
            return self._dates(cells)
        if not types.is_dictionary(cells.type):
            cells = _as_text(cells).dictionary_encode()
        texts = pc.utf8_trim(_as_text(cells.dictionary), BLANKS)
        coded = self._coded(texts)
        if cells.indices.null_count == 0:
            index = cells.indices.to_numpy()
            return Coded(*(part[index] for part in coded))
        gap = Coded(np.full((1, self.column.width), np.nan), np.ones(1, bool), np.zeros(1, bool))
        coded = Coded(*(np.concatenate(pair) for pair in zip(coded, gap)))
        index = pc.fill_null(cells.indices, len(texts)).to_numpy()
        return Coded(*(part[index] for part in coded))

    def _coded(self, texts: pa.Array) -> Coded:
        is_gap = self._is_gap(texts)
        is_missing = is_gap.to_numpy(zero_copy_only=False)
        if self.column.kind == "date":
            texts = pc.if_else(is_gap, pa.scalar(None, texts.type), texts)
            parts, is_wrong = self._date_parts(_parsed_dates(texts, self.column.format))
            return Coded(parts, is_missing, is_wrong & ~is_missing)
        values = np.full((len(texts), 1), np.nan)
        values[~is_missing, 0] = self._codes_of(texts.filter(pc.invert(is_gap)).to_pylist())
        is_wrong = np.isnan(values[:, 0]) & ~is_missing
        return Coded(values, is_missing, is_wrong)

    def _codes_of(self, labels: list[str]) -> list[float]:
        if self.column.kind == "bool":
            return [1.0 if text.lower() in TRUE else 0.0 if text.lower() in FALSE else np.nan for text in labels]
        if self.grows:
            with self._lock:
                for label in labels:
                    if label not in self.codes:
                        self.codes[label] = len(self.codes)
        unseen = 0 if self.column.kind == "category" else np.nan
        return [self.codes.get(label, unseen) for label in labels]

    def _is_gap(self, texts: pa.Array) -> pa.Array:
        is_named = pc.is_in(texts, value_set=pa.array(sorted(self.missing_values), texts.type))
        return pc.or_(is_named, texts.is_null())

    def _dates(self, cells: pa.Array) -> Coded:
        is_missing = cells.is_null().to_numpy(zero_copy_only=False)
        parts, is_wrong = self._date_parts(_microseconds(cells))
        return Coded(parts, is_missing, is_wrong & ~is_missing)

    def _date_parts(self, times: NDArray[np.datetime64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return the parts (n, width) of times in microseconds, NaN where there is none, and where that is."""
        is_none = np.isnat(times)
        since = np.where(is_none, 0, times.astype(np.int64))
        days, in_day = since // DAY_US, since % DAY_US
        at = since.astype("M8[us]")
        months = at.astype("M8[M]").astype(np.int64)
        parts = {
            "year": months // 12 + 1970,
            "month": months % 12 + 1,
            "day": (at.astype("M8[D]") - at.astype("M8[M]")).astype(np.int64) + 1,
            "weekday": (days + 3) % 7,  # 1970-01-01 was a Thursday
            "days": days,
            "hour": in_day // (DAY_US // 24),
            "minute": in_day // (DAY_US // 24 // 60) % 60,
            "second": in_day // 10**6 % 60,
        }
        values = np.stack([parts[part] for part in self.column.parts], axis=1).astype(np.float64)
        values[is_none] = np.nan
        return values, is_none


def _as_text(cells: pa.Array) -> pa.Array:
    if types.is_dictionary(cells.type):
        cells = cells.dictionary_decode()
    return cells if types.is_string(cells.type) else pc.cast(cells, pa.string())


def _parsed_dates(texts: pa.Array, form: str | None) -> NDArray[np.datetime64]:
    """Return the times in microseconds, NaT where a text is none. Times with a zone are those of UTC."""
    if form is None:
        with suppress(pa.ArrowInvalid):
            return _microseconds(texts)
    times = np.full(len(texts), np.datetime64("NaT", "us"))
    for i, text in enumerate(texts.to_pylist()):
        with suppress(ValueError, TypeError, OverflowError):  # ArrowInvalid is a ValueError
            if form is not None:  # not Arrow's strptime, which takes February 30 for March 1
                times[i] = np.datetime64(datetime.strptime(text, form).replace(tzinfo=None), "us")
            else:
                kind = pa.timestamp("us", "UTC" if ZONED.search(text) else None)
                times[i] = _microseconds(pc.cast(pa.array([text]), kind))[0]
    return times


def _microseconds(cells: pa.Array) -> NDArray[np.datetime64]:
    numbers = pc.cast(pc.cast(cells, pa.timestamp("us"), safe=False), pa.int64())
    return pc.fill_null(numbers, np.iinfo(np.int64).min).to_numpy(zero_copy_only=False).astype("M8[us]")
