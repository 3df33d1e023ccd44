"""Mirrors a run to a tracker: follows what its checkpoints cover, and sends each line once, whatever is killed."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from history.files import read_optional
from history.run import read_run
from trackers.lines import Line, covered_lines

FOLDER = "trackers"  # in the run directory
POLL_S = 1.0


class RunInfo(NamedTuple):
    """All that is sent of a run beside its metrics: no environment variables, no code, no diff."""

    directory: Path
    project: str  # the config's `name`
    name: str  # of the run directory
    key: str  # the run's number, which no other run has
    config: dict[str, Any]


class Tracker(Protocol):
    """Where a mirror sends to. Every method may raise whatever its library raises."""

    is_live: bool
    """Whether somebody can look while the run trains; else all is sent when it ends."""

    def __init__(self, run: RunInfo) -> None:
        """Import the library and find the run there, or make it."""

    def num_held(self, num_marked: int) -> int:
        """Return how many lines the tracker has: at least `num_marked`."""

    def send(self, lines: list[Line]) -> None:
        """Send `lines`; return when a kill of this process cannot lose them."""

    def finish(self, has_ended: bool) -> None:
        """Close the run there; `has_ended` where it will not train on."""


def mirror(run_dir: Path, name: str, has_stopped: Callable[[float], bool]) -> None:
    """Send the lines of the run in `run_dir` to the tracker `name` until training `has_stopped`, then the rest.

    `has_stopped` waits for the given seconds, or for less where it has. Only one process at a time mirrors a run to a
    tracker; the next waits for it. Raises whatever the tracker's library raises.
    """
    from filelock import FileLock  # not for those who only start mirrors

    folder = run_dir / FOLDER
    folder.mkdir(exist_ok=True)
    mark = folder / f"{name}.json"
    while not (run_dir / "status.json").exists():  # a run that has just begun
        if has_stopped(POLL_S):
            return
    with FileLock(folder / f"{name}.lock"):
        tracker: Tracker = import_module(f"trackers.to_{name}").Mirror(_info(run_dir))
        num_sent = tracker.num_held(read_optional(mark).get("lines", 0))
        is_last = False
        while not is_last:
            is_last = has_stopped(POLL_S)
            if tracker.is_live or is_last:
                lines = covered_lines(run_dir)[num_sent:]
                if lines:
                    tracker.send(lines)
                    num_sent += len(lines)
                    write_mark(mark, num_sent)
        tracker.finish(read_run(run_dir).status in ("completed", "early_stopped"))


def _info(run_dir: Path) -> RunInfo:
    run = read_run(run_dir)
    return RunInfo(run_dir, run.config["name"], run_dir.name, f"{run.state['run']:x}", run.config)


def write_mark(mark: Path, num_lines: int) -> None:
    """Record atomically that so many lines were sent."""
    temp = mark.with_suffix(".tmp")
    temp.write_text(json.dumps({"lines": num_lines}), encoding="utf-8")
    os.replace(temp, mark)


def follow_stdin() -> Callable[[float], bool]:
    """Return a function that waits until the other end of stdin is closed: by the training process, or by its death."""
    closed = threading.Event()

    def wait_for_end() -> None:
        sys.stdin.buffer.read()
        closed.set()

    threading.Thread(target=wait_for_end, daemon=True).start()
    return closed.wait
