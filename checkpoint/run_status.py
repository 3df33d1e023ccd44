"""status.json: what a run is doing or how it ended, for those who watch it from outside."""

from __future__ import annotations

import logging
import os
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from logger.run_log import METRICS_FILE, RUN
from utils.errors import CheckpointError, RunDirError, Stopped, reading, writing_to
from utils.files import read_json, write_json
from utils.position import Position

STATUS_FILE = "status.json"
logger = logging.getLogger("run")
State = Literal["running", "completed", "early_stopped", "preempted", "failed"]


def check_same_run(run_dir: Path, logs: dict[str, int], checkpoint: Path) -> None:
    """Raise CheckpointError unless the logs in `run_dir` can be cut back to `logs`, those of `checkpoint`.

    They cannot where those are of another run, or do not name the metrics file. Earlier versions did not number runs.
    """
    number = read_status(run_dir).get(RUN)
    if isinstance(number, int) and logs.get(RUN, number) != number:
        raise CheckpointError(f"{checkpoint}: is of another run; -c with -r starts a new run from its weights")
    if METRICS_FILE not in logs:
        raise CheckpointError(f"{checkpoint}: malformed: it does not say how long {METRICS_FILE} was")


def run_number(run_dir: Path, logs: dict[str, int] | None) -> int:
    """Return the number of the run in `run_dir`, whose checkpoint has `logs`; a new one where there is none yet."""
    number = (logs or {}).get(RUN) or read_status(run_dir).get(RUN)
    return number if isinstance(number, int) else secrets.randbits(48)  # the generators of `random` are the run's


def read_status(run_dir: Path) -> dict[str, Any]:
    """Return status.json, {} where it is missing or malformed. Raises RunDirError where it cannot be read."""
    path = run_dir / STATUS_FILE
    with reading(path, RunDirError):
        try:
            status = read_json(path)
        except (FileNotFoundError, ValueError, RecursionError):
            return {}
    return status if isinstance(status, dict) else {}


def write_status(
    run_dir: Path,
    state: State,
    position: Position,
    number: int | None,
    signal: str | None = None,
    error: str | None = None,
) -> None:
    """Replace status.json atomically; `number` is the run's. Raises RunDirError."""
    content = {
        "status": state,
        RUN: number,
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
def status_reported(
    run_dir: Path, number: int, position: Position, final_state: Callable[[], State], check_held: Callable[[], None]
) -> Iterator[None]:
    """Keep status.json true from "running" to how it ends: `final_state()`, preempted or failed. Raises RunDirError.

    `check_held` raises it where the run directory is no longer this process's: then nothing is written.
    """
    _warn_of_a_kill(run_dir)
    write_status(run_dir, "running", position, number)
    try:
        yield
        check_held()
    except Stopped as stopped:
        check_held()
        write_status(run_dir, "preempted", position, number, signal=stopped.signal)
        raise
    except BaseException as error:
        with suppress(RunDirError):  # the disk may be what failed
            check_held()
            write_status(run_dir, "failed", position, number, error=f"{type(error).__name__}: {error}"[:2000])
        raise
    write_status(run_dir, final_state(), position, number)


def _warn_of_a_kill(run_dir: Path) -> None:
    """Say what probably happened where a process, which is gone, did not write how it ended."""
    last = read_status(run_dir)
    if last.get("status") == "running":
        who = f"pid {last.get('pid')!r:.20} on {last.get('host')!r:.100}"
        logger.warning(f"the last process ({who}) was killed: memory ran out, most likely, or by SIGKILL")
