"""status.json: what a run is doing or how it ended, for whoever watches it from outside."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

from utils.errors import RunDirError, Stopped, writing_to
from utils.files import read_json, write_json
from utils.position import Position

STATUS_FILE = "status.json"
logger = logging.getLogger("run")
State = Literal["running", "completed", "early_stopped", "preempted", "failed"]


def write_status(
    run_dir: Path, state: State, position: Position, signal: str | None = None, error: str | None = None
) -> None:
    """Replace status.json atomically. Raises RunDirError."""
    content = {
        "status": state,
        "position": position.state_dict(),
        "signal": signal,
        "error": error,
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    with writing_to(run_dir):
        write_json(content, run_dir / STATUS_FILE)


@contextmanager
def status_reported(run_dir: Path, position: Position, final_state: Callable[[], State]) -> Iterator[None]:
    """Keep status.json true from "running" to how it ends: `final_state()`, preempted or failed. Raises RunDirError."""
    _warn_of_a_kill(run_dir)
    write_status(run_dir, "running", position)
    try:
        yield
    except Stopped as stopped:
        write_status(run_dir, "preempted", position, signal=stopped.signal)
        raise
    except BaseException as error:
        with suppress(RunDirError):  # the disk may be what failed
            write_status(run_dir, "failed", position, error=f"{type(error).__name__}: {error}"[:2000])
        raise
    write_status(run_dir, final_state(), position)


def _warn_of_a_kill(run_dir: Path) -> None:
    """Say what probably happened where a process, which is gone, did not write how it ended."""
    path = run_dir / STATUS_FILE
    with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):  # written by hand
        last = read_json(path) if path.is_file() else {"status": None}
        if last["status"] == "running":
            who = f"pid {last['pid']!r:.20} on {last['host']!r:.100}"
            logger.warning(f"the last process ({who}) was killed: memory ran out, most likely, or by SIGKILL")
