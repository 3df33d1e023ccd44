"""Runs of several processes, started without torchrun, which would import torch in each of them."""

from __future__ import annotations

import os
import socket
from functools import partial
from pathlib import Path

from faults import Process, Setup, exit_code, start


def start_all(
    num: int, *args: str, script: str = "train", setup: Setup | None = None, stderr: Path | None = None
) -> list[Process]:
    """Start `script` with `args` as one of `num` processes each; process i prints its errors to `stderr`.i."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [
        start(
            *args,
            script=script,
            setup=partial(_join, number, num, port, setup),
            stderr=stderr.with_suffix(f".{number}") if stderr else None,
        )
        for number in range(num)
    ]


def finish_all(num: int, *args: str, script: str = "train", setup: Setup | None = None) -> list[int]:
    """Run `num` processes to their end; return their exit codes."""
    return [exit_code(process) for process in start_all(num, *args, script=script, setup=setup)]


def _join(number: int, num: int, port: int, setup: Setup | None) -> None:
    names = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": num, "LOCAL_WORLD_SIZE": num, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in names.items()}, MASTER_ADDR="127.0.0.1")
    if setup is not None:
        setup()
