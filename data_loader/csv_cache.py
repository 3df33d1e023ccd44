"""Converted tables: a large CSV or Parquet file is parsed once, into a file that is mapped from then on."""

from __future__ import annotations

import json
import logging
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike

from data_loader.csv_float32 import Rows
from data_loader.csv_reader import CsvReader, read_at
from utils import DataError, fsync_dir
from utils.errors import reading
from utils.file_lock import file_lock
from utils.files import open_regular, write_atomic

FORMAT = 2  # of the cached file; a new number makes old files invalid
NUM_SAMPLES = 64
SAMPLE_BYTES = 16 << 10
KEY_LENGTH = 24
WRITE_BYTES = 64 << 10  # Linux keeps a file in pieces of the size that it was written in, and maps whole ones for a row

logger = logging.getLogger("data")


class CsvSample:
    """What a few pieces of a CSV file show: a key of its content, and about how many rows it has."""

    def __init__(self, path: Path, identity: tuple[int, ...], delimiter: str) -> None:
        """Read the file if it is small, or else NUM_SAMPLES pieces, evenly spread. Raises DataError."""
        with reading(path, DataError), open_regular(path) as file:
            status = os.fstat(file.fileno())
            step = max(status.st_size // NUM_SAMPLES, SAMPLE_BYTES)
            pieces = [read_at(file, at, SAMPLE_BYTES) for at in range(0, status.st_size, step)]
        text = b"".join(pieces)
        num_lines = text.count(b"\n") or text.count(b"\r")
        self.num_rows = num_lines * status.st_size // max(len(text), 1)
        self.identity = (*identity, sha256(text).hexdigest(), delimiter)

    def key(self, columns: list[str]) -> str:
        """Return a name for the table of these columns; it does not depend on the path."""
        return sha256(repr((FORMAT, self.identity, columns)).encode()).hexdigest()[:KEY_LENGTH]


def cached_table(reader: CsvReader, columns: list[str], sample: CsvSample, cache_dir: Path) -> tuple[Path, str]:
    """Return the .npy file, float32 (rows, columns), row-major, that holds the table, and a checksum of its values.

    Converts the file unless that was done before; one process does so at a time, and others wait. What a killed process
    leaves is never used. Raises DataError for a mistake in the file, or where `cache_dir` cannot be written to.
    """
    key = sample.key(columns)
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        path = find_table(cache_dir, key)
        if path is None:
            with locked(cache_dir):
                path = find_table(cache_dir, key) or _convert(reader, columns, cache_dir, key)
        if not reader.notes:
            for note in read_notes(path).get("warnings", []):
                logger.warning(note)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise DataError(f"{cache_dir}: cannot be written to: {getattr(error, 'strerror', None) or error}") from error
    return path, checksum_of(path)


def find_table(cache_dir: Path, key: str) -> Path | None:
    """Return the whole .npy file of a table, or None."""
    return next(cache_dir.glob(f"{key}-*.npy"), None)


def write_table(cache_dir: Path, key: str, blocks: Iterable[Rows], num_columns: int, notes: Callable[[], Any]) -> Path:
    """Write a table of float32, and its `notes` beside it in JSON, so that both are whole or not there.

    `notes` is called when all blocks are written. Hold the lock of `cache_dir`. Raises OSError.
    """
    temp = cache_dir / f".{key}.npy.tmp"
    num_rows, checksum = 0, 0
    try:
        with open(temp, "wb") as file:
            write_npy_header(file, (0, num_columns))
            for rows in blocks:
                values = rows.data.cast("B")
                for at in range(0, len(values), WRITE_BYTES):
                    file.write(values[at : at + WRITE_BYTES])
                num_rows, checksum = num_rows + len(rows), zlib.crc32(rows.data, checksum)
            file.seek(0)
            write_npy_header(file, (num_rows, num_columns))
            file.flush()
            os.fsync(file.fileno())
        path = cache_dir / f"{key}-{checksum:08x}.npy"
        if found := notes():
            write_atomic(path.with_suffix(".json"), json.dumps(found).encode())
        os.replace(temp, path)
        fsync_dir(cache_dir)
    finally:
        temp.unlink(missing_ok=True)
    return path


def read_notes(path: Path) -> dict[str, Any]:
    """Return what was noted of a table, {} where there is nothing. Raises DataError."""
    notes_path = path.with_suffix(".json")
    if not notes_path.exists():
        return {}
    with reading(f"{notes_path} (delete it with its table, and both are made again)", DataError):
        found: dict[str, Any] = json.loads(notes_path.read_text("utf-8"))
        return found


def checksum_of(path: Path) -> str:
    """Return the CRC-32 of the values of a table, which its name ends in."""
    return path.stem.rpartition("-")[2]


@contextmanager
def locked(cache_dir: Path) -> Iterator[None]:
    """Hold the lock of `cache_dir`, and delete what a killed process left half-written."""
    notice = f"{cache_dir}: waiting for another process, which converts a table there"
    with file_lock(cache_dir / ".lock", on_wait=partial(logger.info, notice)):
        for temp in cache_dir.glob(f".{'[0-9a-f]' * KEY_LENGTH}.npy.tmp"):
            temp.unlink()
        yield


def _convert(reader: CsvReader, columns: list[str], cache_dir: Path, key: str) -> Path:
    logger.info(f"{reader.path}: over max_memory; converting it, once, into a table in {cache_dir}")
    blocks = reader.blocks(columns)
    return write_table(cache_dir, key, blocks, len(columns), lambda: {"warnings": reader.notes} if reader.notes else {})


def write_npy_header(file: BinaryIO, shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> None:
    """Write the header of an .npy file, in which NumPy leaves room for the number of rows to grow."""
    header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
