"""status.json: what a run is doing or how it ended, for those who watch it from outside."""

from __future__ import annotations

import logging
import os
import secrets
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from checkpoint.records import now
from logger.run_log import METRICS_FILE, RUN
from utils.errors import CheckpointError, RunDirError, Stopped, reading, writing_to
from utils.files import read_json, write_json

STATUS_FILE = "status.json"
logger = logging.getLogger("run")
State = Literal["running", "completed", "early_stopped", "preempted", "failed", "pruned"]  # the last by sweeps/ alone


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


def progress(position: Mapping[str, int], monitor: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return how far a run is: the epoch that it last trained in, the position of its next step, its best epoch."""
    mode, _, metric = config["trainer"]["monitor"].partition(" ")
    best = {"metric": metric, "mode": mode, "value": monitor.get("best"), "epoch": monitor.get("best_epoch")}
    return {
        "epoch": position["epoch"] - (position["step_in_epoch"] == 0),
        "epochs": config["trainer"]["epochs"],
        "best": best if best["epoch"] else None,
        "position": dict(position),
    }


def write_status(
    run_dir: Path,
    state: State,
    number: int | None,
    progress: Mapping[str, Any],
    signal: str | None = None,
    error: str | None = None,
) -> None:
    """Replace status.json atomically; `number` is the run's. Raises RunDirError.

    `seconds` adds up the time of all processes of the run, without the pauses between them.
    """
    last, time = read_status(run_dir), now()
    content = {
        "status": state,
        **progress,
        "signal": signal,
        "error": error,
        "started": last.get("started") or time,
        "updated": time,
        "ended": None if state == "running" else time,
        "seconds": _seconds_so_far(last, time),
        RUN: number,
        "pid": os.getpid(),
        "host": socket.gethostname(),
    }
    with writing_to(run_dir):
        write_json(content, run_dir / STATUS_FILE)


def _seconds_so_far(last: Mapping[str, Any], time: str) -> int:
    """Return the seconds that all processes of a run took until `time`; `last` is status.json so far."""
    try:
        seconds, is_ours = int(last.get("seconds") or 0), last.get("status") == "running"
        if is_ours and (last.get("pid"), last.get("host")) == (os.getpid(), socket.gethostname()):
            seconds += int((datetime.fromisoformat(time) - datetime.fromisoformat(last["updated"])).total_seconds())
    except (TypeError, ValueError, KeyError, OverflowError):  # a status.json that something else wrote
        return 0
    return max(seconds, 0)


@contextmanager
def status_reported(
    run_dir: Path,
    number: int,
    progress: Callable[[], Mapping[str, Any]],
    final_state: Callable[[], State],
    check_held: Callable[[], None],
) -> Iterator[None]:
    """Keep status.json true from "running" to how it ends: `final_state()`, preempted or failed. Raises RunDirError.

    `check_held` raises it where the run directory is no longer this process's: then nothing is written.
    """
    _warn_of_a_kill(run_dir)
    write_status(run_dir, "running", number, progress())
    try:
        yield
        check_held()
    except Stopped as stopped:
        check_held()
        write_status(run_dir, "preempted", number, progress(), signal=stopped.signal)
        raise
    except BaseException as error:
        with suppress(RunDirError):  # the disk may be what failed
            check_held()
            text = f"{type(error).__name__}: {error}"[:2000]
            write_status(run_dir, "failed", number, progress(), error=text)
        raise
    write_status(run_dir, final_state(), number, progress())


def _warn_of_a_kill(run_dir: Path) -> None:
    """Say what probably happened where a process, which is gone, did not write how it ended."""
    last = read_status(run_dir)
    if last.get("status") == "running":
        who = f"pid {last.get('pid')!r:.20} on {last.get('host')!r:.100}"
        logger.warning(f"the last process ({who}) was killed: memory ran out, most likely, or by SIGKILL")
