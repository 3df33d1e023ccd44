"""Console and file logging. Lines logged before the run directory exists reach its file too."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import TextIO

from logger.console import make_console_lenient
from utils.errors import printable
from utils.files import make_own

FILE_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class _PrintableFormatter(logging.Formatter):
    """Escapes control characters: a checkpoint's or a config's texts may hold those that a terminal obeys."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), kept="\n\t", length=sys.maxsize)


class _ConsoleFormatter(_PrintableFormatter):
    """Plain lines for what is normal, a level in front of what is not."""

    def format(self, record: logging.LogRecord) -> str:
        message = super().format(record)
        return message if record.levelno <= logging.INFO else f"{record.levelname}: {message}"


class _Console(logging.StreamHandler[TextIO]):
    """Loses what it cannot write: a run continues without a console, and does not mention it."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Leave a mistake in the call to logging's own report."""
        if not isinstance(sys.exc_info()[1], OSError | UnicodeError):
            super().handleError(record)


class _LogFile(_Console, logging.FileHandler):
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
    console.setFormatter(_ConsoleFormatter("%(message)s"))
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
