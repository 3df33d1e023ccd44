"""One run, one process: a lock on the run directory that goes with the process that holds it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from utils.errors import RunDirError, writing_to
from utils.file_lock import LockHeldError, file_lock

LOCK_FILE = ".lock"


def refuse_if_locked(path: Path) -> None:
    """Raise RunDirError where another process has the run directory `path`, or that of the checkpoint `path`."""
    run_dir = path if path.is_dir() else path.parent
    if (run_dir / LOCK_FILE).exists():
        with locked(run_dir):
            pass


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Hold the lock of `run_dir`, and sweep the temp files that a killed process left there.

    Raises RunDirError, with host and pid, where another process holds it; and where the directory or something in it
    is a symbolic link, by which a stranger's run directory would have files elsewhere written.
    """
    links = [path for path in (run_dir, *run_dir.iterdir()) if path.is_symlink()]
    if links:
        raise RunDirError(f"{links[0]}: is a symbolic link; a run directory has none")
    with ExitStack() as stack:
        with writing_to(run_dir):
            try:
                stack.enter_context(file_lock(run_dir / LOCK_FILE, f"pid {os.getpid()} on {socket.gethostname()}\n"))
            except LockHeldError as owner:
                raise RunDirError(f"{run_dir}: in use by {owner}; a run is one process") from None
            for temp in run_dir.glob(".*.tmp"):
                temp.unlink()
        yield
