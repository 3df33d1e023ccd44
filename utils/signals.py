"""Stopping well: a signal sets a flag, the training loop looks at it between steps."""

from __future__ import annotations

import os
import signal
from types import FrameType, TracebackType
from typing import Any

EXIT_CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}
"""What the process exits with: 128 + the signal's number, as shells say; 75 (EX_TEMPFAIL) asks to be started again."""
if hasattr(signal, "SIGUSR1"):  # not on Windows
    EXIT_CODES[signal.SIGUSR1] = 75


class StopSignals:
    """While it is entered, the first of EXIT_CODES' signals is remembered in `received`; a second one kills.

    Nothing is done in the handler itself: the interpreter may be anywhere, the middle of a save included.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._pid = os.getpid()
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        """Install the handlers."""
        self._previous = {number: signal.signal(number, self._handle) for number in EXIT_CODES}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Put the former handlers back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        received = signal.Signals(number)
        if os.getpid() != self._pid:  # a data-loading worker, forked with our handlers
            if received is signal.SIGTERM:  # how the loader ends a worker; Ctrl-C, which all get, is the trainer's
                _die_of(received)
        elif self.received is None:
            self.received = received
        else:
            _die_of(received)


def _die_of(received: signal.Signals) -> None:
    signal.signal(received, signal.SIG_DFL)
    signal.raise_signal(received)
