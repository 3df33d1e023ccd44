"""The files of a run directory, which may be old, half written, or not a run's at all."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from history.text import HistoryError

CONFIG, STATUS, METRICS = "config.json", "status.json", "metrics.jsonl"
ENVIRONMENT, TEST = "environment.json", "test.json"
MAX_JSON_BYTES, MAX_DIFF_BYTES = 32 << 20, 200_000


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file. Raises HistoryError with the reason where there is none."""
    try:
        with _open_regular(path) as file:
            content = file.read(MAX_JSON_BYTES)
        value = json.loads(content)
    except FileNotFoundError:
        raise HistoryError(f"{path}: is {'a link to nowhere' if path.is_symlink() else 'missing'}") from None
    except OSError as error:
        raise HistoryError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError):
        raise HistoryError(f"{path}: is {'not valid JSON' if content.strip() else 'empty'}") from None
    if not isinstance(value, dict):
        raise HistoryError(f"{path}: is not a JSON object")
    return value


def read_optional(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; {} where there is none."""
    try:
        return read_object(path)
    except HistoryError:
        return {}


def read_records(run_dir: Path) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl that are whole: a run may be killed, or just now be writing, in one."""
    try:
        with _open_regular(run_dir / METRICS) as file:
            return [record for line in file if (record := _record(line))]
    except (OSError, HistoryError):
        return []


def read_processes(run_dir: Path) -> list[dict[str, Any]]:
    """Return what environment.json says of each process that trained the run, the first one first."""
    found = read_optional(run_dir / ENVIRONMENT).get("processes")
    return [process for process in found if isinstance(process, dict)] if isinstance(found, list) else []


def read_diff(run_dir: Path, process: dict[str, Any]) -> str:
    """Return how the code of a process differed from its commit, at most 200 kB of it; "" where that is not known."""
    name = str(as_dict(process.get("git")).get("diff") or "")
    path = run_dir / name
    if not name or "/" in name or "\\" in name or path.is_symlink():
        return ""
    try:
        with _open_regular(path) as file:
            return file.read(MAX_DIFF_BYTES).decode(errors="replace")
    except (OSError, HistoryError):
        return ""


def _open_regular(path: Path) -> Any:
    """Open a file; not a pipe, which may never end, nor a directory. Raises OSError, HistoryError."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        raise HistoryError(f"{path}: is {'a directory' if stat.S_ISDIR(mode) else 'not a regular file'}")
    return open(path, "rb")


def _record(line: bytes) -> dict[str, Any]:
    try:
        return as_dict(json.loads(line))
    except (ValueError, RecursionError):
        return {}


def as_dict(value: Any) -> dict[str, Any]:
    """Return `value` where it is a dict, else {}."""
    return value if isinstance(value, dict) else {}
