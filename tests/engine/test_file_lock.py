"""A lock file has one holder, is free when its process ends, and can be waited for; with fcntl and without."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ["filelock"] if sys.platform == "win32" else ["fcntl", "filelock"]

# Takes the lock and holds it until its stdin ends. Leaves out utils/__init__.py, which imports torch and takes seconds.
CHILD = """
import os, sys
from pathlib import Path
kind, path, mode = sys.argv[1:]
if kind == "filelock":
    sys.modules["fcntl"] = None
sys.path.insert(0, "utils")
from file_lock import LockHeldError, file_lock
try:
    with file_lock(Path(path), f"pid {os.getpid()}", (lambda: print("waits", flush=True)) if mode == "wait" else None):
        if mode == "fork" and os.fork() == 0:
            os.close(1)
            sys.stdin.read()
            os._exit(0)
        print("holds", flush=True)
        sys.stdin.read()
except LockHeldError as error:
    print("refused by", error)
"""

Process = subprocess.Popen[str]
Start = Callable[[str, str], Process]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return what starts a process that locks a file under tmp_path, by (kind, mode)."""
    with ExitStack() as stack:

        def start_one(kind: str, mode: str) -> Process:
            command = [sys.executable, "-W", "ignore", "-c", CHILD, kind, str(tmp_path / ".lock"), mode]
            process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            stack.enter_context(process)
            stack.callback(process.kill)
            too_late = threading.Timer(20, process.kill)  # of a process that says nothing
            too_late.start()
            stack.callback(too_late.cancel)
            return process

        yield start_one


def says(process: Process) -> str:
    """Wait for the next line that the process prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def end(process: Process) -> None:
    """Let the process release the lock and end."""
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(10) == 0


@pytest.mark.parametrize("kind", LOCKS)
def test_a_second_process_is_refused_with_the_text_of_the_first_until_that_ends(kind: str, start: Start) -> None:
    first = start(kind, "")
    assert says(first) == "holds"
    assert says(start(kind, "")) == f"refused by pid {first.pid}"
    end(first)
    assert says(start(kind, "")) == "holds"


@pytest.mark.parametrize("kind", LOCKS)
def test_a_killed_process_holds_nothing(kind: str, start: Start) -> None:
    first = start(kind, "")
    assert says(first) == "holds"
    first.kill()
    first.wait(10)
    assert says(start(kind, "")) == "holds"


@pytest.mark.parametrize("kind", LOCKS)
@pytest.mark.parametrize("finish", [end, Process.kill], ids=["released", "killed"])
def test_a_process_that_waits_is_next(
    kind: str, finish: Callable[[Process], None], start: Start, tmp_path: Path
) -> None:
    first = start(kind, "")
    assert says(first) == "holds"
    second = start(kind, "wait")
    assert says(second) == "waits"
    time.sleep(0.1)
    assert (tmp_path / ".lock").read_text() == f"pid {first.pid}"
    finish(first)
    first.wait(10)
    assert says(second) == "holds"


@pytest.mark.parametrize("kind", LOCKS)
def test_who_may_wait_and_need_not_gets_no_notice(kind: str, start: Start) -> None:
    assert says(start(kind, "wait")) == "holds"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_worker_that_outlives_the_holder_does_not_hold(start: Start) -> None:
    first = start("fcntl", "fork")
    assert says(first) == "holds"
    first.kill()
    first.wait(10)
    assert first.stdin is not None
    assert says(start("fcntl", "")) == "holds"  # the worker lives, and waits until our end of its stdin is closed
