"""Console and file logging. Lines logged before the run directory exists reach its file too."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from logger.console import has_colour, is_terminal, make_console_lenient
from utils.errors import printable
from utils.files import make_own
from utils.signals import in_notebook

FILE_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class _PrintableFormatter(logging.Formatter):
    """Escapes control characters: a checkpoint's or a config's texts may hold those that a terminal obeys."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), kept="\n\t", length=sys.maxsize)


class _ConsoleFormatter(_PrintableFormatter):
    """Plain lines for what is normal, a level in front of what is not.

    On a terminal and in a notebook, a record with a `row`, as (header, text, whether it is the best), is a row of a
    table; the header comes once, and again after other output.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__("%(message)s")
        self._has_colour, self._has_tables = has_colour(stream), is_terminal(stream) or in_notebook()
        self._header = ""

    def format(self, record: logging.LogRecord) -> str:
        row = getattr(record, "row", None)
        if row is None or not self._has_tables:
            self._header = ""
            message = super().format(record)
            is_normal = record.levelno <= logging.INFO
            return message if is_normal else f"{self._coloured(f'{record.levelname}:', 33)} {message}"
        header, text, is_best = row
        text = self._coloured(f"{text}  best", 32) if is_best else text
        shown = text if header == self._header else f"{self._coloured(header, 1)}\n{text}"
        self._header = header
        return shown

    def _coloured(self, text: str, code: int) -> str:
        """Return `text` in the colour of an ANSI code: 1 bold, 32 green, 33 yellow."""
        return f"\x1b[{code}m{text}\x1b[0m" if self._has_colour else text


class _Lossy(logging.StreamHandler[TextIO]):
    """Loses what it cannot write: a run continues without a console, and does not mention it."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Leave a mistake in the call to logging's own report."""
        if not isinstance(sys.exc_info()[1], OSError | UnicodeError):
            super().handleError(record)


class _Console(_Lossy):
    """Writes a line above the bars that are shown, rather than into them."""

    def emit(self, record: logging.LogRecord) -> None:
        """Take the bars away, write, and draw them again."""
        with tqdm.external_write_mode(self.stream, nolock=True):  # a lock could be held for ever in a forked process
            super().emit(record)


class _LogFile(_Lossy, logging.FileHandler):
    """Loses what it cannot write, too: on a full disk the checkpoint, or metrics.jsonl, raises what is wrong."""

    def close(self) -> None:
        """Close the file; what could not be written is lost."""
        with suppress(OSError):
            super().close()


def setup_logging() -> None:
    """Log to the console, and keep what is logged until `log_to_file` names a file."""
    make_console_lenient()
    console = _Console(sys.stdout)
    console.setLevel(logging.INFO)
    console.setFormatter(_ConsoleFormatter(sys.stdout))
    pending = MemoryHandler(capacity=10_000, flushLevel=logging.CRITICAL + 1, flushOnClose=False)
    _replace_handlers(console, pending)
    logging.getLogger("checkpoint").setLevel(logging.DEBUG)  # how long each save took: for the file, not the console


def log_to_file(path: Path) -> None:
    """Append to `path` from now on, what was logged since `setup_logging` first. Raises OSError."""
    if path.exists():
        make_own(path)
    file = _LogFile(path, encoding="utf-8", errors="backslashreplace")
    file.setFormatter(_PrintableFormatter(FILE_FORMAT))
    root = logging.getLogger()
    for handler in root.handlers:
        if isinstance(handler, MemoryHandler):
            handler.setTarget(file)
            handler.flush()
    _replace_handlers(*(h for h in root.handlers if type(h) is _Console), file)


def close_logging() -> None:
    """Close the file and stop logging to the console."""
    _replace_handlers()


def _replace_handlers(*handlers: logging.Handler) -> None:
    root = logging.getLogger()
    for old in list(root.handlers):
        # pytest's handlers, and those of whoever embeds us, stay: only what this file made is ours to take away.
        if isinstance(old, MemoryHandler | logging.FileHandler) or isinstance(old.formatter, _ConsoleFormatter):
            root.removeHandler(old)
            if old not in handlers:
                old.close()
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(logging.INFO)
