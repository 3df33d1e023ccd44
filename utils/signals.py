"""Stopping well: a signal sets a flag, the training loop looks at it between steps."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.process import BaseProcess
from types import FrameType, TracebackType
from typing import Any

from torch.utils.data._utils.signal_handling import _set_SIGCHLD_handler
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter as LoaderIterator

_CODES = {"SIGTERM": 143, "SIGINT": 130, "SIGHUP": 129, "SIGUSR1": 75}
EXIT_CODES = {getattr(signal, name): code for name, code in _CODES.items() if hasattr(signal, name)}
"""What the process exits with: 128 + the signal's number, as shells say; 75 (EX_TEMPFAIL) asks to be started again.

Windows has only the first two.
"""
REPEAT_S = 1.0  # `timeout`, terminals and job managers signal the process and its group: that is one request
LOOK_AGAIN_S = 1.0  # whether the main thread waits for a worker that has died


class StopSignals:
    """While entered, remembers the first of EXIT_CODES' signals in `received`, and does nothing else.

    A signal may come anywhere, even in the middle of a save. With `at_once`, for when there is nothing to save, the
    handler raises SystemExit, except in a destructor, where Python would swallow it. A nested StopSignals takes over
    what was `received`. A second signal, more than REPEAT_S later, ends the process at once; in a notebook, a second
    SIGINT is a KeyboardInterrupt. A SIGHUP that is ignored, as under nohup, stays ignored.
    """

    def __init__(self, at_once: bool = False) -> None:
        self.received: signal.Signals | None = None
        self._at_once = at_once
        self._received_s = 0.0
        self._pid = os.getpid()
        self._previous: dict[signal.Signals, Any] = {}
        self._worker_error: RuntimeError | None = None

    def __enter__(self) -> StopSignals:
        """Install the handlers."""
        outer = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
        if isinstance(outer, StopSignals):
            self.received, self._received_s = outer.received, outer._received_s
        handlers: dict[signal.Signals, Callable[..., None]] = dict.fromkeys(EXIT_CODES, self._handle)
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
            del handlers[signal.SIGHUP]
        if hasattr(signal, "SIGCHLD"):
            _set_SIGCHLD_handler()  # torch's, which it would install over ours when it starts the first workers
            if getattr(signal.getsignal(signal.SIGCHLD), "__func__", None) is not StopSignals._handle_child:
                handlers[signal.SIGCHLD] = self._handle_child
        self._previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Put the former handlers back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        received = signal.Signals(number)
        if os.getpid() != self._pid:  # a process that was forked with our handlers
            if received is signal.SIGTERM:  # how its parent ends it; the others, which all get, are the trainer's
                signal.signal(received, signal.SIG_DFL)
                signal.raise_signal(received)
        elif self.received is None:
            self.received, self._received_s = received, time.monotonic()
            if self._at_once and all(outer.f_code.co_name != "__del__" for outer in _frames(frame)):
                raise SystemExit(EXIT_CODES[received])
        elif time.monotonic() - self._received_s > REPEAT_S:
            if received is signal.SIGINT and in_notebook():  # whose kernel stays alive
                raise KeyboardInterrupt
            os._exit(EXIT_CODES[received])

    def _handle_child(self, number: int, frame: FrameType | None) -> None:
        """Raise what torch's handler says of a dead worker where its batch is waited for, and never in a step.

        So the state is whole when training ends by it. Waiting must end by it: a worker that was killed may have
        written half a batch, and the rest never comes. Until then the handler is called again and again.
        """
        try:
            self._previous[signal.SIGCHLD](number, frame)
        except RuntimeError as error:
            self._worker_error = error
        if self._worker_error is None:
            return
        if any(worker.exitcode for worker in _waited_for(frame)):
            worker_error, self._worker_error = self._worker_error, None
            raise worker_error
        main_thread = threading.main_thread().ident
        threading.Timer(LOOK_AGAIN_S, signal.pthread_kill, (main_thread, number)).start()


def in_notebook() -> bool:
    """Whether this process is the kernel of a Jupyter notebook, Colab's and VS Code's included."""
    ipython = sys.modules.get("IPython")
    return getattr(ipython and ipython.get_ipython(), "kernel", None) is not None


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield `frame` and those that called it, the innermost first."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def _waited_for(frame: FrameType | None) -> Sequence[BaseProcess]:
    """Return the workers that this frame waits for to give a batch."""
    for caller in _frames(frame):
        iterator = caller.f_locals.get("self")
        if caller.f_code.co_name == "__next__" and isinstance(iterator, LoaderIterator):
            return iterator._workers
    return ()


def _leave_group() -> None:
    """Give a process that is forked while StopSignals is entered its own group: signals to ours must not reach it."""
    if getattr(signal.getsignal(signal.SIGTERM), "__func__", None) is StopSignals._handle:
        os.setpgid(0, 0)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_group)  # before anything else: a starting worker gets signals too


def init_worker(init_fn: Callable[[int], None] | None, worker_id: int) -> None:
    """In a data-loading worker, leave the signals of the process group to the trainer, and call `init_fn`.

    `timeout`, a closed terminal and Ctrl-C signal the whole group. SIGTERM must still end a worker, as its parent sends
    it. So the worker leaves the group, even where it was not forked.
    """
    for number in EXIT_CODES.keys() - {signal.SIGTERM}:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    if init_fn is not None:
        init_fn(worker_id)
