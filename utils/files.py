"""Reading and writing small files so that they are either whole or not there."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO


def ensure_dir(dirname: str | Path) -> None:
    """Make the directory and its parents where they are missing."""
    Path(dirname).mkdir(parents=True, exist_ok=True)


def open_regular(path: str | Path) -> BinaryIO:
    """Open a file to read. Raises OSError, also for a path with NUL, and a pipe or a device, which may never end."""
    try:
        mode = os.stat(path).st_mode
    except ValueError as error:
        raise OSError(errno.EINVAL, str(error)) from None
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "is a pipe or a device, not a file")
    return open(path, "rb")


def write_atomic(path: str | Path, data: bytes) -> None:
    """Write `data` so that `path` is, after any crash, either what it was or the whole of `data`.

    Temp file in the same directory, fsync, rename, fsync of the directory (man 2 rename, man 2 fsync).
    Raises OSError (disk full, read-only) and then leaves `path` as it was.
    """
    path = Path(path)
    temp = write_temp(path, data)
    try:
        os.replace(temp, path)
    finally:
        temp.unlink(missing_ok=True)
    fsync_dir(path.parent)


def write_temp(path: Path, data: bytes) -> Path:
    """Write `data` to a temp file beside `path`, fsync it, and return its path. Raises OSError, leaving no file."""
    temp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temp.unlink(missing_ok=True)  # one of a killed process of this number may be another name of a checkpoint
    try:
        with open(temp, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temp.unlink(missing_ok=True)
        raise
    return temp


def make_own(path: Path, size: int | None = None) -> None:
    """Let the file be one without other names, of at most `size` bytes: where it is not, by a new file."""
    stat = path.stat()
    if stat.st_nlink > 1 or (size is not None and stat.st_size > size):
        with open(path, "rb") as file:
            data = file.read(size)
        write_atomic(path, data)


def fsync_dir(directory: Path) -> None:
    """Make renames and links in `directory` survive a power cut. On Windows, which opens no directory, do nothing."""
    if os.name == "nt":
        return
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def read_json(fname: str | Path) -> Any:
    """Return the JSON document in `fname`."""
    return json.loads(Path(fname).read_text(encoding="utf-8"))


def write_json(content: Any, fname: str | Path) -> None:
    """Write `content` as indented JSON, atomically."""
    write_atomic(fname, (json.dumps(content, indent=4, allow_nan=False) + "\n").encode())
