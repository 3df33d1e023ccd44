"""Arrays made once, each in an .npy file that is mapped from then on: whole, with its checksum, or not there."""

from __future__ import annotations

import json
import logging
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike, NDArray

from utils import DataError, fsync_dir
from utils.errors import reading
from utils.file_lock import file_lock
from utils.files import write_atomic

KEY_LENGTH = 24  # hex digits, which the file's name begins with
WRITE_BYTES = 64 << 10  # Linux keeps a file in pieces of the size that it was written in, and maps whole ones for a row

logger = logging.getLogger("data")


def find_array(cache_dir: Path, key: str) -> Path | None:
    """Return the whole .npy file of an array, or None."""
    return next(cache_dir.glob(f"{key}-*.npy"), None)


def write_array(
    cache_dir: Path,
    key: str,
    blocks: Iterable[NDArray[Any]],
    row_shape: tuple[int, ...],
    dtype: DTypeLike = np.float32,
    notes: Callable[[], Any] = dict,
) -> Path:
    """Write the rows of all `blocks` as one array, and its `notes` beside it in JSON, so that both are whole or absent.

    `notes` is called when all blocks are written. Hold the lock of `cache_dir`. Raises OSError.
    """
    temp = cache_dir / f".{key}.npy.tmp"
    num_rows, checksum = 0, 0
    try:
        with open(temp, "wb") as file:
            _write_header(file, (0, *row_shape), dtype)
            for rows in blocks:
                values = rows.data.cast("B")
                for at in range(0, len(values), WRITE_BYTES):
                    file.write(values[at : at + WRITE_BYTES])
                num_rows, checksum = num_rows + len(rows), zlib.crc32(values, checksum)
            file.seek(0)
            _write_header(file, (num_rows, *row_shape), dtype)
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
    """Return what was noted of an array, {} where there is nothing. Raises DataError."""
    notes_path = path.with_suffix(".json")
    if not notes_path.exists():
        return {}
    with reading(f"{notes_path} (delete it with its table, and both are made again)", DataError):
        found: dict[str, Any] = json.loads(notes_path.read_text("utf-8"))
        return found


def checksum_of(path: Path) -> str:
    """Return the CRC-32 of the values of an array, which its name ends in."""
    return path.stem.rpartition("-")[2]


@contextmanager
def locked(cache_dir: Path) -> Iterator[None]:
    """Hold the lock of `cache_dir`, and delete what a killed process left half-written."""
    notice = f"{cache_dir}: waiting for another process, which converts data there"
    with file_lock(cache_dir / ".lock", on_wait=partial(logger.info, notice)):
        for temp in cache_dir.glob(f".{'[0-9a-f]' * KEY_LENGTH}.npy.tmp"):
            temp.unlink()
        yield


def _write_header(file: BinaryIO, shape: tuple[int, ...], dtype: DTypeLike) -> None:
    """Write the header of an .npy file, in which NumPy leaves room for the number of rows to grow."""
    header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
