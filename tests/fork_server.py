"""Runs scripts of other checkouts in processes forked from one that has imported torch, so that each starts at once."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

PRELOADED = ("torch", "torchvision.utils", "torch.utils.tensorboard", "torch._dynamo", "pydantic", "numpy", "yaml")


class Script:
    """A script that runs in a process of its own."""

    def __init__(self, server: ForkServer, pid: int, log: Path) -> None:
        self._server, self.pid, self._log = server, pid, log
        self.code: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, negative where a signal killed it; None while it runs."""
        if self.code is None:
            self.code = self._server.ask({"poll": self.pid})
        return self.code

    def wait(self) -> int:
        """Wait for the end; return the exit code."""
        if self.code is None:
            self.code = self._server.ask({"wait": self.pid})
        assert self.code is not None
        return self.code

    @property
    def output(self) -> str:
        """What it has printed, errors included."""
        return self._log.read_text()


class ForkServer:
    """The process that scripts are forked from."""

    def __init__(self) -> None:
        env = os.environ | {"PYTHONPATH": "", "PYTEST_ADDOPTS": ""}
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )

    def start(self, project: Path, *args: str) -> Script:
        """Start `args`, a script of the checkout `project` or "-m" and a module, and its arguments."""
        log = project / "output.log"
        return Script(self, self.ask({"cwd": str(project), "args": args, "log": str(log)}), log)

    def ask(self, request: dict[str, Any]) -> Any:
        """Send a request to the server; return its answer."""
        assert self._process.stdin
        assert self._process.stdout
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """End the server."""
        self._process.communicate()


def _run(cwd: str, args: list[str], log: str) -> None:
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
    os.dup2(1, 2)
    os.chdir(cwd)
    sys.path[0], sys.argv = cwd, args[args[0] == "-m" :]
    code = 0
    try:
        run = runpy.run_module if args[0] == "-m" else runpy.run_path
        run(sys.argv[0], run_name="__main__")
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    os._exit(code)


def _serve() -> None:
    for name in PRELOADED:
        __import__(name)
    for line in sys.stdin:
        request = json.loads(line)
        if "args" in request:
            answer: Any = os.fork()
            if answer == 0:
                _run(**request)
        else:
            pid, status = os.waitpid(request.get("wait") or request["poll"], 0 if "wait" in request else os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _serve()
