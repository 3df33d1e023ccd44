"""A lock file that one process at a time holds, and that the operating system frees when that process ends."""

from __future__ import annotations

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
def file_lock(path: Path, owner: str = "", on_wait: Callable[[], object] | None = None) -> Iterator[None]:
    """Hold the lock file `path`, with the text `owner` in it. The file stays when the lock is released.

    Where another process holds it, call `on_wait` once and then wait; without `on_wait`, raise LockHeldError.
    Raises OSError where `path` cannot be written to. Whoever holds it must not open `path` once more:
    closing a file drops all record locks that the process has on it.
    """
    with open(path, "a+", encoding="utf-8") as file:
        try:
            lock = _acquire(file, should_wait=False)
        except (BlockingIOError, PermissionError, TimeoutError):
            if on_wait is None:
                file.seek(0)
                raise LockHeldError(file.read().strip() or "another process") from None
            on_wait()
            lock = _acquire(file, should_wait=True)
        with lock:
            file.truncate(0)
            file.write(owner)
            file.flush()
            yield


def _acquire(file: TextIO, should_wait: bool) -> AbstractContextManager[object]:
    """Return the lock, which is held until `file` is closed and the context left. Raises OSError where it is held."""
    if fcntl:  # a record lock, not flock: data-loading workers do not inherit it, and may outlive a killed trainer
        fcntl.lockf(file, fcntl.LOCK_EX | (0 if should_wait else fcntl.LOCK_NB))
        return nullcontext()
    import filelock

    # On a file beside it, since Windows lets nobody read what is locked; 0.1 s, since one that is just being deleted
    # looks as if it were held.
    return filelock.FileLock(f"{file.name}.held").acquire(timeout=-1 if should_wait else 0.1)
