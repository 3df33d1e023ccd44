"""One run, one process: a lock on the run directory that goes with the process that holds it."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from utils.errors import RunDirError, writing_to

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
    is a symbolic link, by which a stranger's run directory would have files elsewhere written. A POSIX record lock
    (fcntl), not flock: data-loading workers do not inherit it, and they may outlive a killed trainer by seconds.
    """
    links = [path for path in (run_dir, *run_dir.iterdir()) if path.is_symlink()]
    if links:
        raise RunDirError(f"{links[0]}: is a symbolic link; a run directory has none")
    with writing_to(run_dir):
        file = open(run_dir / LOCK_FILE, "a+", encoding="utf-8")  # noqa: SIM115  # closed below, which unlocks
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            owner = file.read().strip() or "another process"
            raise RunDirError(f"{run_dir}: in use by {owner}; a run is one process") from None
        with writing_to(run_dir):
            file.truncate(0)
            file.write(f"pid {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
            for temp in run_dir.glob(".*.tmp"):
                temp.unlink()
        yield
