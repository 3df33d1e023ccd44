"""A lock file that one process at a time holds, and that the operating system frees when that process ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

PATIENCE_S = 0.1  # of the library's lock: whose file is just being deleted looks as if it were held


class LockHeldError(Exception):
    """Another process holds the lock; `owner` is the text that it wrote into the file, perhaps empty."""

    def __init__(self, path: Path, owner: str) -> None:
        self.owner = owner
        super().__init__(f"{path}: locked by {owner or 'another process'}")


@contextmanager
def file_lock(path: Path, owner: str = "", on_wait: Callable[[], object] | None = None) -> Iterator[None]:
    """Hold the lock file `path`, with the text `owner` in it. The file stays when the lock is released.

    Where another process holds it, call `on_wait` once and then wait; without `on_wait`, raise LockHeldError.
    Raises OSError where `path` cannot be written to. Whoever holds it must not open `path` once more:
    closing a file drops all record locks that the process has on it.
    """
    with open(path, "a+", encoding="utf-8") as file:
        lock: _RecordLock | _LibraryLock = _RecordLock(file) if fcntl else _LibraryLock(path)
        if not lock.acquire(should_wait=False):
            if on_wait is None:
                file.seek(0)
                raise LockHeldError(path, file.read().strip())
            on_wait()
            lock.acquire(should_wait=True)
        try:
            file.truncate(0)
            file.write(owner)
            file.flush()
            yield
        finally:
            lock.release()


class _RecordLock:
    """A POSIX record lock, not flock: data-loading workers do not inherit it, and may outlive a killed trainer."""

    def __init__(self, file: TextIO) -> None:
        self.file = file

    def acquire(self, should_wait: bool) -> bool:
        """Return whether this process holds the lock now."""
        try:
            fcntl.lockf(self.file, fcntl.LOCK_EX | (0 if should_wait else fcntl.LOCK_NB))
        except (BlockingIOError, PermissionError):
            return False
        return True

    def release(self) -> None:
        """Let others have the lock."""
        fcntl.lockf(self.file, fcntl.LOCK_UN)


class _LibraryLock:
    """The lock of the library `filelock`, on a file beside `path`: Windows lets nobody read what is locked."""

    def __init__(self, path: Path) -> None:
        import filelock  # needed on Windows alone

        self.lock = filelock.FileLock(f"{path}.held")
        self.timeout_error = filelock.Timeout

    def acquire(self, should_wait: bool) -> bool:
        """Return whether this process holds the lock now."""
        try:
            self.lock.acquire(timeout=-1 if should_wait else PATIENCE_S)
        except self.timeout_error:
            return False
        return True

    def release(self) -> None:
        """Let others have the lock."""
        self.lock.release()
