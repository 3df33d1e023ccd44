"""Regression from the numeric columns of a CSV file."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import torch
from torch import Tensor

from base import BaseDataLoader, TensorBatches
from utils import DataError, nearest, split_indices


class CsvDataLoader(BaseDataLoader):
    """Batches of features (N, F) and a target (N, 1), float32, as they stand in the file.

    The file has a header; `features` are its columns by name, by default all but `target`; other columns may hold
    anything. `test_split` (a fraction, or a count of rows) is held out for testing, always the same rows. Scaling is
    the model's affair (see `BaseModel.adapt`).
    """

    def __init__(
        self,
        path: str,
        target: str,
        batch_size: int,
        shuffle: bool = True,
        validation_split: float | int = 0.0,
        num_workers: int = 0,
        training: bool = True,
        *,
        features: list[str] | None = None,
        test_split: float | int = 0.0,
        delimiter: str = ",",
    ) -> None:
        """Load the rows of the training split, or with `training=False` of the test split.

        Raises DataError, with row and column, where the file is missing, empty, ragged, lacks a column, or holds
        something other than a finite number where one belongs.
        """
        header = read_header(Path(path), delimiter)
        self.features = [name for name in header if name != target] if features is None else features
        table = read_columns(Path(path), [*self.features, target], delimiter)
        kept, held_out = split_indices(len(table), test_split, "data_loader.args.test_split")
        if not training and len(held_out) == 0:
            raise DataError(f"{path}: data_loader.args.test_split is 0: there is no test split to evaluate on")
        rows = table[kept if training else held_out]
        dataset = TensorBatches(rows[:, :-1], rows[:, -1:])
        super().__init__(dataset, batch_size, shuffle and training, validation_split if training else 0, num_workers)


def read_header(path: Path, delimiter: str) -> list[str]:
    """Return the column names in the first row of the file. Raises DataError."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            return next(csv.reader(file, delimiter=delimiter))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except StopIteration:
        raise DataError(f"{path}: is empty") from None


def read_columns(path: Path, columns: list[str], delimiter: str) -> Tensor:
    """Return the named columns as a float32 tensor (rows, columns). Raises DataError."""
    header = read_header(path, delimiter)
    for name in columns:
        if name not in header:
            raise DataError(f"{path}: has no column {name!r}; {nearest(name, header)}")
        if header.count(name) > 1:
            raise DataError(f"{path}: has {header.count(name)} columns called {name!r}")
    try:
        table = pa_csv.read_csv(
            path,
            parse_options=pa_csv.ParseOptions(delimiter=delimiter),
            convert_options=pa_csv.ConvertOptions(
                include_columns=columns, column_types=dict.fromkeys(columns, "float64")
            ),
        )
        values = np.stack([table[name].to_numpy() for name in columns], axis=1) if len(table) else np.empty((0, 1))
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(_first_mistake(path, columns, delimiter) or f"{path}: {error}") from None
    if len(values) == 0:
        raise DataError(f"{path}: has a header but no rows")
    if not np.isfinite(values).all():
        raise DataError(_first_mistake(path, columns, delimiter) or f"{path}: holds what is no finite number")
    return torch.from_numpy(values.astype(np.float32))


def _first_mistake(path: Path, columns: list[str], delimiter: str) -> str | None:
    """Look for what pyarrow stumbled over, row by row, to tell where it stands; rows count from 1, the header."""
    header = read_header(path, delimiter)
    with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
        for row_number, row in enumerate(csv.reader(file, delimiter=delimiter), start=1):
            if row and len(row) != len(header):
                return f"{path}: row {row_number}: {len(row)} columns, the header has {len(header)}"
            for name, text in zip(header, row):
                if row_number > 1 and name in columns and not _is_finite_number(text):
                    return f"{path}: row {row_number}, column {name!r}: {text!r} is not a finite number"
    return None


def _is_finite_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
