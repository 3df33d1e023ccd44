"""Sweeps of the toy, whose runs are forked from the sweep's process, so that each starts at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import sweep
import toy
from distributed import launched
from sweeps.child import stop_with_stdin


class Forked:
    """A run in a fork of this process, with a pipe to its stdin as subprocess.Popen makes it."""

    def __init__(self, args: Sequence[str], output: Path) -> None:
        self._code: int | None = None
        stdin, self._pipe = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._pipe)
            _run(list(args), stdin, output)
        os.close(stdin)

    def poll(self) -> int | None:
        if self._code is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
                os.close(self._pipe)
        return self._code

    def wait(self, timeout: float = float("inf")) -> int:
        end = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("", timeout)
            time.sleep(0.02)
        return code

    def terminate(self) -> None:
        if self.poll() is None:
            os.kill(self._pid, signal.SIGTERM)

    def kill(self) -> None:
        os.kill(self._pid, signal.SIGKILL)


def _run(args: list[str], stdin: int, output: Path) -> None:
    code = 1
    try:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        os.dup2(stdin, 0)
        os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
        os.dup2(1, 2)
        stop_with_stdin()
        with launched():
            toy.main(toy.parse_args(args))
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def parse_args(argv: list[str]) -> list[str]:
    return argv


def main(argv: list[str]) -> None:
    sweep.main(argv, slots=toy.SLOTS, start=lambda script, args, output: Forked(args, output))
