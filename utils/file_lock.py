"""A lock file that one process at a time holds, and that the operating system frees when that process ends."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TextIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


class LockHeldError(Exception):
    """Another process holds the lock. The text is what that process wrote into the file, or "another process"."""


@contextmanager
def file_lock(path: Path, owner: str = "", on_wait: Callable[[], object] | None = None) -> Iterator[Callable[[], bool]]:
    """Hold the lock file `path`, with the text `owner` in it. The file stays when the lock is released.

    Yields a function that says whether `path` still is the file that is locked; where it was deleted, moved or
    replaced, another process can lock another one. Where another process holds it, call `on_wait` once and then wait;
    without `on_wait`, raise LockHeldError. Raises OSError where `path` cannot be written to. Whoever holds it must not
    open `path` once more: closing a file drops all record locks that the process has on it.
    """
    while True:
        with open(path, "a+", encoding="utf-8") as file, _acquired(file, on_wait):
            if _is_at(file, path) and os.fstat(file.fileno()).st_nlink == 1:
                file.truncate(0)
                file.write(owner)
                file.flush()
                yield lambda: _is_at(file, path)
                return
            if _is_at(file, path):  # it has another name too, such as in a backup of hard links: not ours to write to
                path.unlink()


def _is_at(file: TextIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False


def _acquired(file: TextIO, on_wait: Callable[[], object] | None) -> AbstractContextManager[object]:
    try:
        return _acquire(file, should_wait=False)
    except (BlockingIOError, PermissionError, TimeoutError):
        if on_wait is None:
            file.seek(0)
            raise LockHeldError(file.read().strip() or "another process") from None
        on_wait()
        return _acquire(file, should_wait=True)


def _acquire(file: TextIO, should_wait: bool) -> AbstractContextManager[object]:
    """Return the lock, which is held until `file` is closed and the context left. Raises OSError where it is held."""
    if fcntl:  # a record lock, not flock: data-loading workers do not inherit it, and may outlive a killed trainer
        fcntl.lockf(file, fcntl.LOCK_EX | (0 if should_wait else fcntl.LOCK_NB))
        return nullcontext()
    import filelock

    # On a file beside it, since Windows lets nobody read what is locked; 0.1 s, since one that is just being deleted
    # looks as if it were held.
    return filelock.FileLock(f"{file.name}.held").acquire(timeout=-1 if should_wait else 0.1)
