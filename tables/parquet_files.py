"""Parquet files on a disk or at a URL: what their footers say of all rows, and the rows of a row group."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyarrow import fs as pa_fs
from pyarrow import types

from tables.csv_mistakes import FLOAT32_END
from tables.float32 import EXACT_END, Bounds, lost_digits
from utils import ConfigError, DataError, nearest
from utils.errors import printable

CHUNK_ROWS = 1 << 15  # decoded at a time, so that Arrow's copy of a row group stays small
MAX_THREADS = 16  # that wait for footers

logger = logging.getLogger("data")


class Shard(NamedTuple):
    """One Parquet file, as its footer describes it."""

    name: str  # below the path of the table
    size: int  # in bytes
    checksum: int  # CRC-32 of the footer
    group_rows: tuple[int, ...]  # of each row group


class ParquetTable:
    """The numbers of `columns`, the last of them the target, in one Parquet file or a directory of them.

    Messages count row groups, and the rows in each, from 0, as pyarrow does.
    """

    def __init__(self, path: str, features: list[str] | None, target: str | None) -> None:
        """Read the footers. By default the last column is the target, and all others are features.

        Raises DataError, with its place, where no file or column is there, files differ in their columns, a column is
        not numeric, or has nulls by its statistics; ConfigError where `features` make no sense. Warns of columns whose
        numbers, by their statistics, float32 does not hold.
        """
        self.path = path.rstrip("/")
        with reading(path):
            names = find_parquet(*file_system(path))
        if not names:
            raise DataError(f"{path}: has no .parquet file")
        self.shards: list[Shard] = []
        kinds: dict[str, pa.DataType] = {}
        nulls = []
        with ThreadPoolExecutor(MAX_THREADS) as pool:
            for shard, schema, metadata in pool.map(self._footer, names):
                found = _choose(self.path + shard.name, schema, features, list(kinds)[-1] if kinds else target)
                if not kinds:
                    kinds, self.columns, bounds = found, list(found), np.full((3, len(found)), -np.inf)
                for column in kinds | found:
                    here, there = found.get(column, "missing"), kinds.get(column, "missing")
                    if here != there:
                        where = f"{self.path}{shard.name}: column {column!r} is {here}"
                        raise DataError(f"{where}; in {self.path}{names[0]} it is {there}")
                nulls += [(shard, group) for group in _statistics(metadata, self.columns, bounds)]
                self.shards.append(shard)
        for shard, group in nulls[:1]:  # its rows have the place
            self.read(shard, range(group, group + 1), np.empty((shard.group_rows[group], len(kinds)), np.float32))
        if not any(sum(shard.group_rows) for shard in self.shards):
            raise DataError(f"{path}: has no rows")
        for note in _rounded(kinds, bounds):
            logger.warning(f"{path}: {note}")

    def read(self, shard: Shard, groups: range, out: NDArray[np.float32], use_threads: bool = False) -> None:
        """Decode row groups of a shard into `out`, (rows, columns) float32.

        Raises DataError, with the place, at what is no finite float32, or damaged, or was changed since.
        """
        now, file = self._open(shard.name)
        if now != shard:
            raise DataError(f"{self.path}{shard.name}: was changed since the run started")
        row = 0
        for group in groups:
            place, start = f"{self.path}{shard.name}: row group {group}", row
            with reading(place):
                for batch in file.iter_batches(CHUNK_ROWS, [group], self.columns, use_threads):
                    _fill(out[row : row + len(batch)], batch, self.columns, place, row - start)
                    row += len(batch)
            if row - start != shard.group_rows[group]:
                raise DataError(f"{place}: has {row - start} rows; its footer says {shard.group_rows[group]}")

    def fingerprint(self) -> str:
        """Return a checksum of the names below `path`, sizes, numbers of rows, and footers of all files."""
        return f"{zlib.crc32(repr(self.shards).encode()):08x}"

    def _footer(self, name: str) -> tuple[Shard, pa.Schema, pq.FileMetaData]:
        shard, file = self._open(name)  # which is closed here: there may be more of them than files may be open
        return shard, file.schema_arrow, file.metadata

    def _open(self, name: str) -> tuple[Shard, pq.ParquetFile]:
        with reading(self.path + name):
            system, root = file_system(self.path)  # of this process: a worker cannot use its parent's connections
            opened = system.open_input_file(root + name)
            # On a disk a buffered stream takes less memory; at a URL few large requests take less time.
            is_url = "://" in self.path
            how = {"pre_buffer": is_url, "buffer_size": 0 if is_url else 1 << 20, "page_checksum_verification": True}
            file = pq.ParquetFile(opened, **how)
            size, length = opened.size(), file.metadata.serialized_size
            checksum = zlib.crc32(opened.read_at(length, size - length - 8))  # then come its length and a mark
        group_rows = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        return Shard(name, size, checksum, tuple(group_rows)), file


@contextmanager
def reading(place: str) -> Iterator[None]:
    """Turn what goes wrong as `place` is read into a DataError; what a URL's library raises may be of any class."""
    try:
        yield
    except (DataError, ConfigError, MemoryError):  # MemoryError: Arrow's too
        raise
    except Exception as error:
        if not isinstance(error, OSError | ValueError | pa.ArrowException) and "://" not in place:
            raise
        reason = printable(" ".join(str(error).split()) or type(error).__name__)
        raise DataError(f"{place}: cannot be read: {reason}") from None


def file_system(path: str) -> tuple[pa_fs.FileSystem, str]:
    """Return the file system of a path or URL, and the path in it. Raises DataError where fsspec is missing."""
    if "://" not in path:
        return pa_fs.LocalFileSystem(), path
    try:
        from fsspec.core import url_to_fs  # optional: for URLs alone

        system, root = url_to_fs(path)
    except ImportError as error:  # fsspec itself, or its part for this kind of URL
        raise DataError(f"{path}: URLs are read by fsspec; pip install fsspec and what it names: {error}") from None
    return pa_fs.PyFileSystem(pa_fs.FSSpecHandler(system)), root


def find_parquet(system: pa_fs.FileSystem, root: str) -> list[str]:
    """Return what follows `root` in the names of its .parquet files, sorted; of a file, "". Raises OSError."""
    kind = system.get_file_info(root).type
    if kind == pa_fs.FileType.File:
        return [""]
    if kind == pa_fs.FileType.NotFound:
        raise FileNotFoundError("No such file or directory")
    if kind != pa_fs.FileType.Directory:
        raise OSError("is a pipe or a device, not a file")
    root = root.rstrip("/")
    within = system.get_file_info(pa_fs.FileSelector(root, recursive=True))
    names = [info.path[len(root) :] for info in within if info.type == pa_fs.FileType.File]
    # Hadoop and Spark mark so what they are still writing, and their summaries.
    return sorted(name for name in names if name.endswith(".parquet") and "/." not in name and "/_" not in name)


def _choose(name: str, schema: pa.Schema, features: list[str] | None, target: str | None) -> dict[str, pa.DataType]:
    """Return the types of the features and, last, of the target. Raises DataError, ConfigError."""
    target = schema.names[-1] if target is None and schema.names else target or ""
    columns = [*([other for other in schema.names if other != target] if features is None else features), target]
    for column in columns:
        if column not in schema.names:
            raise DataError(f"{name}: has no column {column!r}; {nearest(column, schema.names)}")
        if schema.names.count(column) > 1:
            raise DataError(f"{name}: has {schema.names.count(column)} columns called {column!r}")
    if len(columns) == 1 and features is None:
        raise DataError(f"{name}: has no column but the target, {target!r}")
    if len(columns) == 1 or len(set(columns)) < len(columns):
        raise ConfigError(f"data_loader.args.features: {columns[:-1]}; name different columns, not the target")
    kinds = {column: schema.field(column).type for column in columns}
    for column, kind in kinds.items():
        if not (types.is_integer(kind) or types.is_floating(kind)):
            hint = "" if column == target else "; `features` may leave it out"
            raise DataError(f"{name}: column {column!r} is {kind}; integers and floats are allowed{hint}")
    return kinds


def _statistics(metadata: pq.FileMetaData, columns: list[str], bounds: Bounds) -> Iterator[int]:
    """Widen `bounds` by the statistics of the columns; yield the row groups that have nulls."""
    places = {metadata.schema.column(i).path: i for i in range(metadata.num_columns)}
    for group in range(metadata.num_row_groups):
        has_nulls = False
        for i, column in enumerate(columns):
            found = metadata.row_group(group).column(places[column]).statistics
            if found is not None and found.has_null_count:
                has_nulls |= found.null_count > 0
            if found is not None and found.has_min_max and isinstance(found.min, int | float):
                bounds[:2, i] = np.maximum(bounds[:2, i], (-float(found.min), float(found.max)))
        if has_nulls:
            yield group


def _rounded(kinds: dict[str, pa.DataType], bounds: Bounds) -> Iterator[str]:
    for i, kind in enumerate(kinds.values()):
        largest = max(bounds[:2, i])
        if EXACT_END < largest < FLOAT32_END or (types.is_float64(kind) and 0 < largest < FLOAT32_END):
            bounds[2, i] = np.spacing(np.float32(largest)) / 2
    return lost_digits(list(kinds), bounds)


def _fill(out: NDArray[np.float32], batch: pa.RecordBatch, columns: list[str], place: str, first_row: int) -> None:
    """Write the columns into `out`, (rows, columns). Raises DataError at the first that is no finite float32."""
    with np.errstate(over="ignore"):  # what becomes infinite is told below
        for i, column in enumerate(columns):
            out[:, i] = batch.column(column).to_numpy(zero_copy_only=False)
    if not np.isfinite(out).all():
        row, i = np.argwhere(~np.isfinite(out))[0].tolist()
        value = batch.column(columns[i])[row].as_py()
        came = "a null" if value is None else repr(value)
        raise DataError(f"{place}, row {first_row + row}, column {columns[i]!r}: {came} is not a finite number")
