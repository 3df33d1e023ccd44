"""What a table's columns say of the training split: vocabularies, means, and what gaps are filled with."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import Tensor

from tables.coders import Coder
from tables.columns import WHERE, Column
from tables.float32 import EXACT_END, Rows
from tables.row_encoder import RowEncoder
from utils import ConfigError, DataError

CHUNK = 1 << 16  # rows
NO_VALUE = (
    "column {!r}: has no value in the training split, whose {} would fill its gaps; ignore it, or give a constant"
)

logger = logging.getLogger("data")


def fit_columns(raw: RowEncoder, matrix: Rows, train: Tensor) -> list[Column]:
    """Return the columns of `raw`, whose labels are coded as they came, fitted to the rows `train` of its matrix.

    Raises DataError where the training split has no value to fill gaps with, or one class alone.
    """
    fitted, start = [], 0
    for coder in raw.coders:
        column = coder.column
        part = matrix[:, start : start + column.width]
        start += column.width
        fitted.append(_fit_labels(coder, part[:, 0], train) if column.has_labels else _fit_numbers(column, part, train))
    return fitted


def recode(raw: RowEncoder, fitted: Sequence[Column], matrix: Rows) -> None:
    """Put the codes of the fitted labels into the matrix, in the place of those of `raw`.

    A label that the training split does not have becomes 0, or as a class NaN.
    """
    start = 0
    for column, coder in zip(fitted, raw.coders):
        if column.has_labels:
            known = Coder(column, coder.missing_values).codes
            unseen = 0.0 if column.kind == "category" else np.nan
            table = [float(known.get(label, unseen)) for label in coder.codes]  # in the order of their codes
            lookup = np.array([*table, np.nan], np.float32)  # the last for what is missing
            for at in range(0, len(matrix), CHUNK):
                codes = matrix[at : at + CHUNK, start]
                index = np.where(np.isnan(codes), len(table), codes).astype(np.int64)
                matrix[at : at + CHUNK, start] = lookup[index]
        start += column.width


def _fit_labels(coder: Coder, codes: Rows, train: Tensor) -> Column:
    column, labels = coder.column, list(coder.codes)
    if len(labels) >= EXACT_END:
        raise DataError(f"column {column.name!r}: has {len(labels):,} different labels; a code is at most 2**24")
    counts = np.zeros(len(labels), np.int64)
    for part in _chunks(codes, train):
        counts += np.bincount(part[~np.isnan(part)].astype(np.int64), minlength=len(labels))
    kept = sorted(label for label, count in zip(labels, counts.tolist()) if count >= column.min_count)
    if column.kind == "class":
        if len(kept) < 2:
            raise DataError(f"column {column.name!r}: the training split has one class alone, {''.join(kept)!r}")
        return column.fitted(labels=kept)
    fill = 0
    if column.missing == "constant" and str(column.constant) not in kept:
        kept = sorted([*kept, str(column.constant)])  # gaps are a category of their own
    if column.missing == "constant":
        fill = kept.index(str(column.constant)) + 1
    elif column.missing == "most_frequent":
        if not counts.any():
            raise DataError(NO_VALUE.format(column.name, column.missing))
        most_frequent = labels[int(counts.argmax())]
        ties = [label for label in kept if counts[coder.codes[label]] == counts.max()]
        fill = kept.index(min(ties, default=most_frequent)) + 1 if ties else 0
    return column.fitted(labels=kept, fill=[float(fill)])


def _fit_numbers(column: Column, part: Rows, train: Tensor) -> Column:
    means, stds, fills = [], [], []
    constant = _constant(column)
    for i in range(column.width):
        mean, std, num_values = _mean_and_std(part[:, i], train)
        if num_values == 0 and column.missing not in ("constant", "error"):
            raise DataError(NO_VALUE.format(column.name, column.missing))
        if num_values == 0:
            mean, std = (constant[i] if constant is not None else 0.0), 1.0
        values = dict.fromkeys(("mean", "error", "drop"), mean)
        values["constant"] = constant[i] if constant is not None else mean
        if column.missing in ("median", "most_frequent"):
            values[column.missing] = _typical(part[:, i], train, column.missing)
        means.append(mean)
        stds.append(std)
        fills.append(float(values[column.missing]))
    return column.fitted(mean=means, std=stds, fill=fills)


def _constant(column: Column) -> list[float] | None:
    """Return what gaps of a column are filled with, for each column of the matrix. Raises ConfigError."""
    if column.missing != "constant":
        return None
    text = str(column.constant).lower() if isinstance(column.constant, bool) else str(column.constant)
    filled = RowEncoder([column.fitted(missing="error")], [])
    rows, mistakes = filled.encode_rows(pa.table({column.name: [text]}))
    if mistakes:
        raise ConfigError(f"{WHERE}.{column.name}.constant: {mistakes[0].split(': ', 1)[1]}")
    return [float(value) for value in rows[0].tolist()]


def _typical(values: Rows, train: Tensor, policy: str) -> float:
    present = values[train.numpy()]
    present = present[~np.isnan(present)]
    if policy == "median":
        return float(np.median(present))
    found, counts = np.unique(present, return_counts=True)
    return float(found[counts.argmax()])  # the smallest of those that are as frequent


def fit_target(column: Column, part: Rows, train: Tensor) -> Column:
    """Return a target with the mean and deviation of its logarithm, where it is above 0 everywhere."""
    if column.kind == "class":
        return column
    smallest = min((float(chunk.min()) for chunk in _chunks(part, train)), default=0.0)
    if not smallest > 0:
        return column
    mean, std, _ = _mean_and_std(part, train, is_log=True)
    return column.fitted(log_mean=mean, log_std=std)


def _mean_and_std(values: Rows, train: Tensor, is_log: bool = False) -> tuple[float, float, int]:
    """Return the mean and standard deviation of the values that are there, and how many are; a constant column has 1.

    Chunk by chunk, in float64: Chan, Golub, LeVeque 1979 (see model/model.py).
    """
    num_values, mean, squares = 0, 0.0, 0.0
    for chunk in _chunks(values, train):
        present = chunk[~np.isnan(chunk)].astype(np.float64)
        if len(present) == 0:
            continue
        present = np.log(present) if is_log else present
        total, delta = num_values + len(present), float(present.mean()) - mean
        mean += delta * len(present) / total
        squares += float(present.var()) * len(present) + delta**2 * num_values * len(present) / total
        num_values = total
    std = (squares / max(num_values, 1)) ** 0.5
    smallest = float(np.finfo(np.float32).tiny) + abs(mean) * 2.0**-44
    return mean, std if std > smallest else 1.0, num_values


def _chunks(values: Rows, train: Tensor) -> Iterator[NDArray[Any]]:
    for rows in train.split(CHUNK):
        yield values[rows.numpy()]
