"""Regression from the numeric columns of a CSV file."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import torch
from torch import Tensor

from base import BaseDataLoader, TensorBatches
from utils import ConfigError, DataError, nearest, split_indices
from utils.annotations import BatchSize, NonNegativeInt, Share

NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


class CsvDataLoader(BaseDataLoader):
    """Batches of features (N, F) and a target (N, 1), float32, as they stand in the file.

    The file is UTF-8 and has a header; `features` are its columns by name, by default all but `target`; other columns
    may hold anything. `test_split` (a fraction, or a count of rows) is held out for testing, always the same rows.
    Scaling is the model's affair (see `BaseModel.adapt`).
    """

    def __init__(
        self,
        path: str,
        target: str,
        batch_size: BatchSize,
        shuffle: bool = True,
        validation_split: Share = 0.0,
        num_workers: NonNegativeInt = 0,
        training: bool = True,
        *,
        features: list[str] | None = None,
        test_split: Share = 0.0,
        delimiter: str = ",",
    ) -> None:
        """Load the rows of the training split, or with `training=False` of the test split.

        Raises DataError, with row and column, where the file is missing, empty, ragged, lacks a column, or holds
        something other than a finite float32 where a number belongs; ConfigError where the arguments make no sense.
        """
        if len(delimiter) != 1 or not delimiter.isascii():
            raise ConfigError(f"data_loader.args.delimiter: {delimiter!r}; give one character")
        header = read_header(Path(path), delimiter)
        self.features = [name for name in dict.fromkeys(header) if name != target] if features is None else features
        if not self.features or len({*self.features, target}) != len(self.features) + 1:
            raise ConfigError(f"data_loader.args.features: {self.features}; name different columns, not the target")
        table = read_columns(Path(path), [*self.features, target], delimiter)
        kept, held_out = split_indices(len(table), test_split, "data_loader.args.test_split")
        if not training and len(held_out) == 0:
            raise DataError(f"{path}: data_loader.args.test_split is 0: there is no test split to evaluate on")
        rows = table[kept if training else held_out]
        dataset = TensorBatches(rows[:, :-1], rows[:, -1:])
        super().__init__(dataset, batch_size, shuffle and training, validation_split if training else 0, num_workers)


def read_header(path: Path, delimiter: str) -> list[str]:
    """Return the column names in the first row of the file. Raises DataError."""
    header = next(_rows(path, delimiter), None)
    if not header:
        raise DataError(f"{path}: is empty" if header is None else f"{path}: row 1: is empty; the header belongs there")
    return header


def read_columns(path: Path, columns: list[str], delimiter: str) -> Tensor:
    """Return the named columns as a float32 tensor (rows, columns). Raises DataError."""
    header = read_header(path, delimiter)
    for name in columns:
        if name not in header:
            raise DataError(f"{path}: has no column {name!r}; {nearest(name, header)}")
        if header.count(name) > 1:
            raise DataError(f"{path}: has {header.count(name)} columns called {name!r}")
    try:
        table = _read_table(path, columns, delimiter, newlines_in_values=False)
    except (pa.ArrowException, OSError) as error:
        _raise_first_mistake(path, columns, delimiter)
        try:  # no mistake: a quoted line break, perhaps, which the parallel reader does not take
            table = _read_table(path, columns, delimiter, newlines_in_values=True)
        except (pa.ArrowException, OSError):
            raise DataError(f"{path}: {error}") from None
    with np.errstate(over="ignore"):  # what does not fit float32 becomes inf, and is told below
        values = np.stack([table[name].to_numpy().astype(np.float32) for name in columns], axis=1)
    if len(values) == 0 or not np.isfinite(values).all():
        _raise_first_mistake(path, columns, delimiter)
        raise DataError(f"{path}: holds what is not a finite number")
    return torch.from_numpy(values)


def _read_table(path: Path, columns: list[str], delimiter: str, newlines_in_values: bool) -> pa.Table:
    return pa_csv.read_csv(
        path,
        parse_options=pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=newlines_in_values),
        convert_options=pa_csv.ConvertOptions(include_columns=columns, column_types=dict.fromkeys(columns, "float64")),
    )


def _rows(path: Path, delimiter: str) -> Iterator[list[str]]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            yield from csv.reader(file, delimiter=delimiter)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _raise_first_mistake(path: Path, columns: list[str], delimiter: str) -> None:
    """Look for what pyarrow stumbled over, row by row, to tell where it stands; rows count from 1, the header."""
    header = read_header(path, delimiter)
    num_rows = 0
    for number, row in enumerate(_rows(path, delimiter), start=1):
        num_rows += bool(row)
        if row and len(row) != len(header):
            raise DataError(f"{path}: row {number}: {len(row)} columns, the header has {len(header)}")
        for name, text in zip(header, row):
            if number > 1 and name in columns and not _is_finite_float32(text):
                raise DataError(f"{path}: row {number}, column {name!r}: {text!r:.80} is not a finite number")
    if num_rows == 1:
        raise DataError(f"{path}: has a header but no rows")


def _is_finite_float32(text: str) -> bool:
    if not NUMBER.fullmatch(text.strip()):
        return False
    with np.errstate(over="ignore"):
        return bool(np.isfinite(np.float32(text)))
