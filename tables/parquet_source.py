"""The rows of a Parquet file or a directory of them, with columns of any kind, on a disk or at a URL."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tables.float32 import Rows
from tables.parquet_files import CHUNK_ROWS, file_system, find_parquet, reading
from tables.row_encoder import RowEncoder
from tables.source import TableSource
from utils import DataError

SAMPLE_ROWS = 100_000


class ParquetSource(TableSource):
    """A Parquet file or a directory of them, on a disk or at a URL."""

    def __init__(self, path: str) -> None:
        """Read the footers. Raises DataError."""
        self.path, self.notes = path.rstrip("/"), []
        with reading(path):
            self._system, self._root = file_system(self.path)
            self.files = find_parquet(self._system, self._root)
        if not self.files:
            raise DataError(f"{path}: has no .parquet file")
        self._groups: list[tuple[str, int, int]] = []  # file, row group and its rows
        footers = []
        self._schema: pa.Schema
        for name in self.files:
            with self._opened(name) as file:
                schema, metadata = file.schema_arrow, file.metadata
                groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
                self._groups += [(name, i, group.num_rows) for i, group in enumerate(groups)]
                footers.append((name, metadata.serialized_size, [(g.num_rows, g.total_byte_size) for g in groups]))
            self._schema = schema if name == self.files[0] else self._schema
            if not schema.equals(self._schema):
                raise DataError(f"{self.path}{name}: its columns differ from those of {self.path}{self.files[0]}")
        self._key = sha256(repr((footers, self._stamps())).encode()).hexdigest()

    @property
    def names(self) -> list[str]:
        """The columns, as the first footer has them."""
        return list(self._schema.names)

    @property
    def num_bytes(self) -> int:
        """The size of the files."""
        return sum(info.size or 0 for info in self._infos())

    def num_rows(self) -> int:
        """How many rows there are."""
        return sum(rows for _, _, rows in self._groups)

    def key(self) -> str:
        """Return a text that differs where the files, or how they are read, do."""
        return self._key

    def sample(self) -> pa.Table:
        """Return the first rows."""
        with self._opened(self.files[0]) as file:
            batches = []
            for batch in file.iter_batches(CHUNK_ROWS):
                batches.append(batch)
                if sum(map(len, batches)) >= SAMPLE_ROWS:
                    break
            return pa.Table.from_batches(batches, self._schema)

    def blocks(self, encoder: RowEncoder) -> Iterator[Rows]:
        """Yield all rows, encoded. Raises DataError with the place."""
        self.check(encoder.names)
        stamps, total = self._stamps(), 0
        for name, group, _ in self._groups:
            row = 0
            with self._opened(name) as file, reading(f"{self.path}{name}: row group {group}"):
                for batch in file.iter_batches(CHUNK_ROWS, [group], encoder.names):
                    rows, mistakes = encoder.encode_rows(batch)
                    for at in sorted(mistakes):
                        raise DataError(f"{self.path}{name}: row group {group}, row {row + at}, {mistakes[at]}")
                    row += len(batch)
                    yield rows.numpy()
            total += row
        if self._stamps() != stamps:
            raise DataError(f"{self.path}: was changed while it was read")
        if total == 0:
            raise DataError(f"{self.path}: has no rows")

    def place_of(self, index: int) -> str:
        """Return where the row is that is at `index` of all."""
        for name, group, rows in self._groups:
            if index < rows:
                return f"{name.lstrip('/')} row group {group}, row {index}".lstrip()
            index -= rows
        return f"row {index}"

    def _opened(self, name: str) -> Any:
        with reading(self.path + name):
            return pq.ParquetFile(self._system.open_input_file(self._root + name), page_checksum_verification=True)

    def _infos(self) -> list[Any]:
        with reading(self.path):
            infos: list[Any] = self._system.get_file_info([self._root + name for name in self.files])
            return infos

    def _stamps(self) -> list[Any]:
        return [(info.size, info.mtime_ns) for info in self._infos()]
