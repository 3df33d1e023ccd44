"""Whether the process of a run is still alive."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"


def is_alive(run_dir: Path, state: dict[str, Any]) -> bool | None:
    """Whether the process that status.json, `state`, names is still training; None if it is on another host.

    The lock decides, as another process may have the same pid by now; the pid does only where the lock was deleted.
    """
    pid = state.get("pid")
    if state.get("host") != socket.gethostname():
        return None
    if pid == os.getpid():  # which must not open its own lock: closing a file drops all record locks on it
        return True
    held = is_held(run_dir)
    return is_process(pid) if held is None else held


def is_held(run_dir: Path) -> bool | None:
    """Whether another process holds the lock of `run_dir`; None where there is no lock to ask."""
    if fcntl is None:
        import filelock

        try:
            with filelock.FileLock(run_dir / f"{LOCK}.held").acquire(timeout=0.1):
                return False
        except (OSError, TimeoutError):
            return True
    try:
        file = open(run_dir / LOCK, "rb")  # noqa: SIM115  # closed below
    except OSError:
        return None
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # freed as the file closes
        except OSError:
            return True
        return False


@contextmanager
def held(run_dir: Path) -> Iterator[bool]:
    """Hold the lock of `run_dir`, so that no process resumes the run meanwhile; yield whether it was free."""
    if fcntl is None or not (run_dir / LOCK).exists():  # Windows deletes no file that is open
        yield not is_held(run_dir)
        return
    with open(run_dir / LOCK, "rb+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True


def is_process(pid: Any) -> bool:
    """Whether a process of any user with this pid is alive here; False on Windows, where Python cannot ask."""
    if os.name == "nt" or not isinstance(pid, int) or pid <= 0:  # on Windows os.kill ends the process
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it is another user's
        pass
    return True
