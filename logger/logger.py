"""Console and file logging. Lines logged before the run directory exists reach its file too."""

from __future__ import annotations

import logging
import sys
from logging.handlers import MemoryHandler
from pathlib import Path

from utils.errors import printable

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


def setup_logging() -> None:
    """Log to the console, and keep what is logged until `log_to_file` names a file."""
    console = logging.StreamHandler(sys.stdout)
    console.setLevel(logging.INFO)
    console.setFormatter(_ConsoleFormatter("%(message)s"))
    pending = MemoryHandler(capacity=10_000, flushLevel=logging.CRITICAL + 1, flushOnClose=False)
    _replace_handlers(console, pending)
    logging.getLogger("checkpoint").setLevel(logging.DEBUG)  # how long each save took: for the file, not the console


def log_to_file(path: Path) -> None:
    """Append to `path` from now on, what was logged since `setup_logging` first. Raises OSError."""
    file = logging.FileHandler(path, encoding="utf-8")
    file.setFormatter(_PrintableFormatter(FILE_FORMAT))
    root = logging.getLogger()
    for handler in root.handlers:
        if isinstance(handler, MemoryHandler):
            handler.setTarget(file)
            handler.flush()
    _replace_handlers(*(h for h in root.handlers if type(h) is logging.StreamHandler), file)


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
