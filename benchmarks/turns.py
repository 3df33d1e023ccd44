"""Lets contenders train in turns: each in a process of its own, one epoch at a time, never two at once."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import pty
import random
import struct
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection

NextTurn = Callable[[], None]
"""Called by a contender right before each epoch: what it has begun must be finished then. Returns when it may go on."""

Contender = Callable[[NextTurn], None]
"""Trains epoch after epoch, without end, in a process of its own. It must be picklable: a function or a partial."""

EPOCHS = 10_000  # for those that want a number; more than are ever raced


def race(contenders: Mapping[str, Contender], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each epoch by contender: `rounds` of them, after one of warming up.

    In each round every contender trains one epoch, in a new random order, so that a slow minute of the machine hits
    all alike. An epoch is everything between two calls of `next_turn`.
    """
    shuffle = random.Random(0).shuffle
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    with ExitStack() as stack:
        terminal = stack.enter_context(Terminal())
        pipes = {name: stack.enter_context(_started(contender, terminal)) for name, contender in contenders.items()}
        for name, pipe in pipes.items():
            _wait(name, pipe, terminal)
        for number in range(rounds + 1):
            order = list(pipes)
            shuffle(order)
            for name in order:
                began = time.perf_counter()
                pipes[name].send(True)
                _wait(name, pipes[name], terminal)
                seconds[name].append(time.perf_counter() - began)
            times = ", ".join(f"{name} {values[-1]:.2f} s" for name, values in seconds.items())
            print(f"  {f'round {number} of {rounds}' if number else 'warm-up'}: {times}", flush=True)
    return {name: values[1:] for name, values in seconds.items()}


class Terminal:
    """A terminal that nobody looks at: children draw their progress bars on it as they do for a user."""

    def __enter__(self) -> Terminal:
        """Open it; a thread reads what is written to it."""
        self._screen, self._tty = pty.openpty()
        fcntl.ioctl(self._tty, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))  # rows, columns; bars ask
        self.path = os.ttyname(self._tty)
        self.tail = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Close it, after the children have."""
        os.close(self._tty)
        self._reader.join(timeout=10)
        os.close(self._screen)

    def _read(self) -> None:
        while True:
            try:
                self.tail = (self.tail + os.read(self._screen, 65536))[-5000:]
            except OSError:  # the last process that had it open has closed it
                return


@contextmanager
def _started(contender: Contender, terminal: Terminal) -> Iterator[Connection]:
    """Start the contender's process; yield the pipe to it. It is ready when it sends something."""
    context = multiprocessing.get_context("spawn")
    pipe, child_pipe = context.Pipe()
    process = context.Process(target=_run, args=(contender, child_pipe, terminal.path))
    process.start()
    child_pipe.close()
    try:
        yield pipe
    finally:
        with pipe:
            if process.is_alive():
                pipe.send(False)
            process.join(timeout=60)
            process.kill()
            process.join()


def _run(contender: Contender, pipe: Connection, terminal_path: str) -> None:
    """Be the contender's process."""
    # Spawned, this process would spawn its DataLoader workers too, which costs each epoch the imports of each worker;
    # started by a user it takes the platform's default. This alone doubled the epochs of all that use a DataLoader.
    multiprocessing.set_start_method(None, force=True)
    terminal = os.open(terminal_path, os.O_RDWR | os.O_NOCTTY)
    os.dup2(terminal, 1)
    os.dup2(terminal, 2)

    def next_turn() -> None:
        pipe.send(None)
        if not pipe.recv():
            raise SystemExit

    contender(next_turn)


def _wait(name: str, pipe: Connection, terminal: Terminal) -> None:
    """Wait until the contender has finished its turn. Raises SystemExit where its process has ended."""
    try:
        pipe.recv()
    except (EOFError, ConnectionResetError):
        time.sleep(1)  # for its last words to be read
        raise SystemExit(f"{terminal.tail.decode(errors='replace')}\n{name} has ended before its time") from None
