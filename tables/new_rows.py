"""New rows of a table, from CSV or Parquet files or from memory, as the features that a model was trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from base import Chunk, NewInputs
from tables.new_csv import COMMAS, CsvFormat, Encoder, csv_chunks, without
from tables.number_encoder import check_names
from utils import DataError, nearest
from utils.files import open_regular

MAX_SHOWN = 5  # names in a message


class NewRows(NewInputs):
    """Rows of a table: columns are found by name, and those that the model does not take may hold anything.

    In memory they are a dict of columns, a list of dicts, a pyarrow table or what can become one, such as a DataFrame;
    or an array (N, F) or (F,) of the features in the order of training.
    """

    def __init__(
        self,
        encoder: Encoder,
        target_names: Sequence[str],
        class_names: Sequence[str] | None = None,
        csv: CsvFormat = COMMAS,
    ) -> None:
        """`csv` says how CSV files are written, as those of the training data were."""
        self.encoder, self.target_names, self.class_names, self.csv = encoder, target_names, class_names, csv

    def __call__(self, values: Any) -> Any:
        """Return the features of one row or of many. Raises DataError, with the row, counted from 0, and column."""
        table = self._table(values)
        if table.num_rows == 0:
            raise DataError("there is no row")
        features, mistakes = self.encoder.encode_rows(table)
        for row in sorted(mistakes):
            raise DataError(f"row {row}, {mistakes[row]}")
        return features

    def chunks(self, path: Path, keep: Sequence[str], chunk_size: int) -> Iterator[Chunk]:
        """Yield the rows of a CSV file, or of a Parquet file or a folder of them; the suffix says which."""
        if path.suffix == ".parquet" or path.is_dir():
            yield from self._parquet_chunks(path, keep)
        else:
            yield from csv_chunks(path, self.csv, self.encoder, keep, self.target_names)

    def _parquet_chunks(self, path: Path, keep: Sequence[str]) -> Iterator[Chunk]:
        import pyarrow.parquet as pq  # takes memory, which training from CSV does without

        from tables.parquet_files import CHUNK_ROWS, reading

        files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
        if not files:
            raise DataError(f"{path}: has no .parquet file")
        columns = list(dict.fromkeys([*self.encoder.names, *keep]))
        for name in files:
            with reading(str(name)), open_regular(name) as file:
                parquet = pq.ParquetFile(file, page_checksum_verification=True)
                try:
                    check_names(columns, parquet.schema_arrow.names)
                except DataError as error:
                    raise DataError(f"{name}: {error}") from None
                for group in range(parquet.num_row_groups):
                    start = 0
                    for batch in parquet.iter_batches(CHUNK_ROWS, [group], columns):
                        table = pa.Table.from_batches([batch])
                        features, wrong = self.encoder.encode_rows(table)
                        mistakes = [f"{name}: row group {group}, row {start + i}, {wrong[i]}" for i in sorted(wrong)]
                        yield Chunk(*without(wrong, features, table.select(keep)), mistakes)
                        start += len(batch)

    def _table(self, values: Any) -> pa.Table:
        names = self.encoder.names
        if isinstance(values, pa.Table | pa.RecordBatch):
            return pa.Table.from_batches([values]) if isinstance(values, pa.RecordBatch) else values
        if isinstance(values, Mapping):
            check_names(names, [str(name) for name in values])
            columns = {name: np.atleast_1d(np.asarray(values[name])).tolist() for name in names}
            if len({len(column) for column in columns.values()}) > 1:
                raise DataError(f"the columns have {', '.join(str(len(column)) for column in columns.values())} rows")
        elif isinstance(values, Tensor | np.ndarray):
            array = torch.atleast_2d(torch.as_tensor(values)).cpu().numpy()
            if array.ndim != 2 or array.shape[1] != len(names):
                shown = ", ".join(names[:MAX_SHOWN]) + (", ..." if len(names) > MAX_SHOWN else "")
                raise DataError(f"an array {list(array.shape)}; the model takes (N, {len(names)}): {shown}")
            return pa.table([pa.array(array[:, i]) for i in range(len(names))], names=names)
        elif isinstance(values, list | tuple) and all(isinstance(row, Mapping) for row in values):
            columns = {name: [_cell(row, name, i) for i, row in enumerate(values)] for name in names}
        elif hasattr(values, "__arrow_c_stream__"):  # the protocol of DataFrames
            return pa.table(values)
        else:
            raise DataError(f"{type(values).__name__}: give a dict of columns, a list of dicts, a table or an array")
        return pa.table({name: _array(column) for name, column in columns.items()})


def _cell(row: Mapping[str, Any], name: str, number: int) -> Any:
    if name not in row:
        raise DataError(f"row {number}: has no column {name!r}; {nearest(name, [str(key) for key in row])}")
    return row[name]


def _array(column: list[Any]) -> pa.Array:
    try:
        return pa.array(column)
    except (pa.ArrowInvalid, pa.ArrowTypeError):  # numbers and text: the encoder says which row is wrong
        return pa.array([None if value is None else str(value) for value in column], pa.string())
