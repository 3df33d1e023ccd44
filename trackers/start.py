"""Starts the mirrors of a run: processes of low priority, which never delay training."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from trackers.mirror import FOLDER

ROOT = Path(__file__).resolve().parent.parent
WAIT_S = 30.0  # at the end, for what is still on its way
WAIT_STOPPED_S = 3.0  # after a signal, which leaves little time, or an error
logger = logging.getLogger("trackers")


@contextmanager
def mirrored(run_dir: Path, names: Sequence[str]) -> Iterator[None]:
    """Mirror the run in `run_dir` to the trackers `names` while training goes on, and send the rest after it."""
    with ExitStack() as stack:
        processes = {name: _start(run_dir, name, stack) for name in names}
        wait_s = WAIT_STOPPED_S
        try:
            yield
            wait_s = WAIT_S
        finally:
            _end(processes, wait_s)


def _end(processes: dict[str, subprocess.Popen[str]], wait_s: float) -> None:
    """Let the mirrors send the rest; leave those that take longer to themselves."""
    for process in processes.values():
        assert process.stdin is not None
        process.stdin.close()
    end = time.monotonic() + wait_s
    for name, process in processes.items():
        try:
            process.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            logger.info(f"{name}: still sending; process {process.pid} goes on")


def _start(run_dir: Path, name: str, stack: ExitStack) -> subprocess.Popen[str]:
    """Start a mirror in a session of its own: signals to the run are not for it. What it prints goes into a file."""
    (run_dir / FOLDER).mkdir(exist_ok=True)
    log = stack.enter_context((run_dir / FOLDER / f"{name}.log").open("a", encoding="utf-8"))
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        [sys.executable, "-m", "trackers", str(run_dir.resolve()), name, "--follow"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
        start_new_session=True,
    )
    threading.Thread(target=_report, args=(name, process), daemon=True).start()
    return process


def _report(name: str, process: subprocess.Popen[str]) -> None:
    """Log what the mirror says, which is one line where it failed."""
    assert process.stdout is not None
    for line in process.stdout:
        logger.warning(f"{name}: {line.strip()}; training goes on")
