"""One run, one process: a lock on the run directory, which is released when its process ends."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from checkpoint.run_status import STATUS_FILE, read_status
from history.alive import is_process
from utils.errors import RunDirError, reading, writing_to
from utils.file_lock import LockHeldError, file_lock

LOCK_FILE = ".lock"
OUR_FILE = (
    r"((config|status|environment|test)\.json|git(\.\d+)?\.diff|info\.log|metrics\.jsonl|events\.out\.tfevents\..*|"
    r"(latest|previous|model_best|checkpoint-epoch\d+)\.pth)"
)
OUR_TEMP = re.compile(rf"\.{OUR_FILE}\.\d+\.tmp")  # as `write_temp` and `link` call them
RESERVED = re.compile(rf"{OUR_FILE}|\.lock(\.held)?")


def refuse_if_locked(run_dir: Path) -> None:
    """Raise RunDirError where another process has the run directory, or a file in it is not what a run writes."""
    if (run_dir / LOCK_FILE).exists():
        with locked(run_dir):
            return
    _check_files(run_dir)
    _refuse_if_alive(run_dir)


@contextmanager
def locked(run_dir: Path) -> Iterator[Callable[[], None]]:
    """Hold the lock of `run_dir`, and sweep the temp files that a killed process left there.

    Yields a check that raises RunDirError where the lock, or the directory, was deleted, moved or replaced since.

    Raises RunDirError, with host and pid, where another process holds it; and where a file in the directory is not
    what a run writes.
    """
    _check_files(run_dir)
    _refuse_if_alive(run_dir)
    with ExitStack() as stack:
        with writing_to(run_dir):
            try:
                owner = f"pid {os.getpid()} on {socket.gethostname()}\n"
                is_still_held = stack.enter_context(file_lock(run_dir / LOCK_FILE, owner))
            except LockHeldError as other:
                raise RunDirError(f"{run_dir}: in use by {other}; a run is one process") from None
            for temp in run_dir.iterdir():
                if OUR_TEMP.fullmatch(temp.name):
                    temp.unlink()

        def check() -> None:
            if not is_still_held():
                what = f"its {LOCK_FILE} was" if run_dir.exists() else "it was"
                raise RunDirError(
                    f"{run_dir}: {what} deleted, moved or replaced while it was in use; nothing more is written"
                )

        yield check


def _check_files(run_dir: Path) -> None:
    """Raise RunDirError for a link, which leads elsewhere, or a FIFO or folder in a file's place."""
    with reading(run_dir, RunDirError):
        if run_dir.is_symlink():
            raise RunDirError(f"{run_dir}: is a symbolic link; a run directory is a real one")
        for path in run_dir.iterdir():
            if path.is_symlink():
                raise RunDirError(f"{path}: is a symbolic link; a run directory has none")
            if RESERVED.fullmatch(path.name) and not path.is_file():
                raise RunDirError(f"{path}: is not a regular file")


def _refuse_if_alive(run_dir: Path) -> None:
    """Raise RunDirError where status.json names a process that lives although somebody deleted the lock.

    Windows deletes no file that is open.
    """
    status = read_status(run_dir)
    pid, host = status.get("pid"), status.get("host")
    is_running = status.get("status") == "running" and host == socket.gethostname() and pid != os.getpid()
    if is_running and not (run_dir / LOCK_FILE).exists() and is_process(pid):
        what = f"says its {STATUS_FILE}; its {LOCK_FILE} was deleted"
        raise RunDirError(f"{run_dir}: in use by pid {pid} on {host}, {what}")
