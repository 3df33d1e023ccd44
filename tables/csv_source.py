"""The rows of a CSV file of any delimiter and encoding, with a header or with names."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv

from tables.csv_cache import CsvSample
from tables.csv_dialect import check_dialect, file_size, plain_csv
from tables.csv_reader import CsvReader, file_identity
from tables.float32 import Rows
from tables.row_encoder import RowEncoder
from tables.source import TableSource
from utils import ConfigError, DataError

SAMPLE_BYTES = 8 << 20


class CsvSource(TableSource):
    """A CSV file, of any delimiter and encoding, with a header or with `names`."""

    def __init__(
        self, path: str, delimiter: str, encoding: str, header: bool, names: list[str] | None, temp_dir: Path
    ) -> None:
        check_dialect(delimiter, encoding)
        if header != (names is None):
            raise ConfigError("data_loader.args.names: give the names of all columns where `header` is false, and only")
        self.path, self.notes = path, []
        self._dialect = (delimiter, encoding, temp_dir)
        self._names = names
        self._temp = ExitStack()

    @cached_property
    def reader(self) -> CsvReader:
        """The reader of the file, or of a copy in UTF-8 where it is not."""
        path, delimiter = self._temp.enter_context(plain_csv(Path(self.path), *self._dialect))
        try:
            reader = CsvReader(path, delimiter, self._names)
        except DataError as error:
            raise self._of_the_file(error) from None
        return reader

    @property
    def names(self) -> list[str]:
        """The columns, of the header or given."""
        return self.reader.header

    @property
    def num_bytes(self) -> int:
        """The size of the files."""
        return file_size(Path(self.path))

    def num_rows(self) -> int:
        """About how many rows there are."""
        return self._sampled.num_rows

    def key(self) -> str:
        """Return a text that differs where the files, or how they are read, do."""
        return repr((self._sampled.identity, self._dialect[:2], self._names))

    @cached_property
    def _sampled(self) -> CsvSample:
        path = Path(self.path)
        return CsvSample(path, file_identity(path), self._dialect[0])

    def sample(self) -> pa.Table:
        """Return the first rows; ragged ones are left out."""
        reader = self.reader
        with open(reader.path, "rb") as file:
            file.seek(reader.body_start)
            text = file.read(SAMPLE_BYTES)
            if file.read(1):
                text = text[: max(text.rfind(b"\n"), text.rfind(b"\r")) + 1]
        if not text.strip():
            raise DataError(f"{self.path}: has a header but no rows")
        names = [str(i) for i in range(len(reader.header))]
        try:
            table = pa_csv.read_csv(
                pa.BufferReader(text),
                pa_csv.ReadOptions(column_names=names, block_size=len(text) + 1),
                pa_csv.ParseOptions(
                    delimiter=reader.delimiter, newlines_in_values=True, invalid_row_handler=lambda row: "skip"
                ),
                pa_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), check_utf8=False),
            )
        except pa.ArrowException as error:
            raise DataError(f"{self.path}: {' '.join(str(error).split())}") from None
        return table.rename_columns(reader.header)

    def check(self, columns: list[str]) -> None:
        """Raise DataError where a column is missing or appears twice."""
        try:
            self.reader.check(columns)
        except DataError as error:
            raise self._of_the_file(error) from None

    def blocks(self, encoder: RowEncoder) -> Iterator[Rows]:
        """Yield all rows, encoded. Raises DataError with the place."""
        self.check(encoder.names)
        self.reader.cells = encoder
        try:
            yield from self.reader.blocks(encoder.names)
        except DataError as error:
            raise self._of_the_file(error) from None
        self.notes = [note.replace(str(self.reader.path), self.path) for note in self.reader.notes]

    def place_of(self, index: int) -> str:
        """Return where the row is that is at `index` of all."""
        with open(self.reader.path, encoding="utf-8-sig", errors="replace", newline="") as file:
            rows = enumerate(csv.reader(file, delimiter=self.reader.delimiter), start=1)
            filled = (number for number, row in rows if row)
            for i, number in enumerate(filled, start=1 - self.reader.first_row):
                if i == index:
                    return f"row {number}"
        return f"row {index + self.reader.first_row}"

    def close(self) -> None:
        """Delete the copy, if one was made."""
        self._temp.close()

    def _of_the_file(self, error: DataError) -> DataError:
        """Return the error with the name of the file that a copy was made of."""
        plain = vars(self).get("reader")
        return DataError(str(error).replace(str(plain.path), self.path) if plain else str(error))
