"""A console that cannot stop a run: closed, full, or unable to show a character, it loses text and says nothing."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Any, TextIO

from utils.signals import in_notebook


class LenientStream:
    """Writes to `stream` until that fails; from then on, what the process writes to its file goes nowhere."""

    def __init__(self, stream: TextIO) -> None:
        """`stream` is sys.stdout or sys.stderr."""
        self._stream = stream

    def write(self, text: str) -> int:
        """Write `text`, and return its length, whatever became of it."""
        try:
            self._stream.write(text)
        except UnicodeError:
            self._stream.write(text.encode("ascii", "backslashreplace").decode("ascii"))
        except OSError as error:
            self._give_up(error)
        return len(text)

    def flush(self) -> None:
        """Hand what was written to the operating system, where that takes it."""
        try:
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def __getattr__(self, name: str) -> Any:
        """Return what else the stream has, such as `isatty` and `encoding`."""
        return getattr(self._stream, name)

    def _give_up(self, error: OSError) -> None:
        """Turn the file into the null device, which takes what is still in buffers too; Python flushes them at exit."""
        if not isinstance(error, BlockingIOError):  # of a terminal that is slow
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)


def make_console_lenient() -> None:
    """Replace sys.stdout and sys.stderr, unless somebody else has, by streams that lose what they cannot write.

    A standard file that is closed becomes the null device, so that no other file gets its number.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # it was closed when Python started
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif stream is getattr(sys, f"__{name}__"):
            setattr(sys, name, LenientStream(stream))


def is_terminal(stream: TextIO) -> bool:
    """Whether `stream` shows text to a person, on a terminal that can move its cursor, as bars and tables need."""
    return os.environ.get("TERM") != "dumb" and stream.isatty()


def has_colour(stream: TextIO) -> bool:
    """Whether `stream` is a terminal that shows colour, and nobody has said NO_COLOR (https://no-color.org)."""
    is_old_windows = os.name == "nt" and "WT_SESSION" not in os.environ
    return is_terminal(stream) and not os.environ.get("NO_COLOR") and not is_old_windows


def terminal_width() -> int:
    """Return how many characters a line has; 120 in a notebook."""
    return 120 if in_notebook() else shutil.get_terminal_size().columns
