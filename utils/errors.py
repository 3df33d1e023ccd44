"""Mistakes that a user can fix: each is a message without a traceback, and has its own exit code."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class UserError(Exception):
    """Something that the user can put right. The text says where, what came, and what is allowed."""

    exit_code = 1

    def _render_traceback_(self) -> list[str]:
        """Return what a notebook shows, which asks for this: the message, without a traceback."""
        return [f"{type(self).__name__}: {self}"]


class ConfigError(UserError):
    """The config or the command line is wrong. Holds every problem found, one a line."""

    exit_code = 2

    def __init__(self, problems: str | Iterable[str]) -> None:
        problems = [problems] if isinstance(problems, str) else problems
        self.problems = [printable(problem, length=5000) for problem in problems]
        super().__init__("\n".join(self.problems))


class DataError(UserError):
    """The data is missing or malformed."""

    exit_code = 3


class CheckpointError(UserError):
    """A checkpoint is missing, damaged, or does not fit the model or the run."""

    exit_code = 4


class NonFiniteError(UserError):
    """The loss or the gradient became NaN or infinite."""

    exit_code = 5


class RunDirError(UserError):
    """The run directory cannot be used: another process has it, or it cannot be written to."""

    exit_code = 6


class OutOfMemoryError(UserError):
    """The device has too little memory."""

    exit_code = 7


class ExportError(UserError):
    """A model cannot be exported, or what was exported gives other outputs."""

    exit_code = 9


class WorkerDiedError(UserError):
    """A data-loading worker was killed, most likely because memory ran out, or crashed."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Stopped(UserError):
    """A signal asked the run to stop, and it did, with a checkpoint."""

    def __init__(self, message: str, signal: str, exit_code: int) -> None:
        """`signal` is its name, such as "SIGTERM"."""
        super().__init__(message)
        self.signal = signal
        self.exit_code = exit_code


def printable(text: object, kept: str = "", length: int = 200) -> str:
    r"""Return `text` with what a terminal would obey, or read in another direction, as "\x1b"; of a long one the ends.

    For names and values that come from a file; the characters of `kept` stay.
    """
    text = str(text)
    text = text if len(text) <= length else f"{text[: length // 2]}…{text[-length // 2 :]}"
    return "".join(c if c.isprintable() or c in kept else c.encode("unicode_escape").decode() for c in text)


@contextmanager
def reading(path: object, kind: type[UserError]) -> Iterator[None]:
    """Turn what Python raises inside, of a file or its content, into an error that names the path and the reason."""
    try:
        yield
    except (OSError, ValueError, RecursionError) as error:  # RecursionError: of JSON that is nested too deeply
        raise kind(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


@contextmanager
def writing_to(directory: object) -> Iterator[None]:
    """Turn an OSError inside into a RunDirError that names the directory and the reason."""
    try:
        yield
    except OSError as error:
        raise RunDirError(f"{directory}: cannot be written to: {error.strerror or error}") from error


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Return the hint that ends an error message: the nearest allowed name, or else all of them."""
    names = sorted(allowed)
    lower = {candidate.lower(): candidate for candidate in names}
    matches = difflib.get_close_matches(name.lower(), lower, n=5, cutoff=0.5)
    if matches:
        swapped = [match for match in matches if sorted(match) == sorted(name.lower())]  # difflib rates these too low
        return f"did you mean {lower[(swapped or matches)[0]]!r}?"
    return f"allowed: {', '.join(names)}" if names else "nothing is allowed here"
