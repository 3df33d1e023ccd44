"""A CSV file of numbers that is too large for memory is parsed once, into a file that is mapped from then on."""

from __future__ import annotations

import logging
import os
from functools import partial
from hashlib import sha256
from pathlib import Path

from base.array_cache import KEY_LENGTH, checksum_of, find_array, locked, read_notes, write_array
from tables.csv_reader import CsvReader, read_at
from utils import DataError
from utils.errors import reading
from utils.files import open_regular

FORMAT = 2  # of the cached file; a new number makes old files invalid
NUM_SAMPLES = 64
SAMPLE_BYTES = 16 << 10

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
        path = find_array(cache_dir, key)
        if path is None:
            with locked(cache_dir):
                path = find_array(cache_dir, key) or _convert(reader, columns, cache_dir, key)
        if not reader.notes:
            for note in read_notes(path).get("warnings", []):
                logger.warning(note)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise DataError(f"{cache_dir}: cannot be written to: {getattr(error, 'strerror', None) or error}") from error
    return path, checksum_of(path)


def _convert(reader: CsvReader, columns: list[str], cache_dir: Path, key: str) -> Path:
    logger.info(f"{reader.path}: over max_memory; converting it, once, into a table in {cache_dir}")
    notes = partial(_notes, reader)
    return write_array(cache_dir, key, reader.blocks(columns), (len(columns),), notes=notes)


def _notes(reader: CsvReader) -> dict[str, list[str]]:
    return {"warnings": reader.notes} if reader.notes else {}
