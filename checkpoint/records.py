"""environment.json and test.json: what a run was trained with, process by process, and what its test gave."""

from __future__ import annotations

import logging
import math
import os
import platform
import socket
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from checkpoint.git import git_diff, git_state
from utils.errors import writing_to
from utils.files import read_json, write_atomic, write_json

ENVIRONMENT_FILE, TEST_FILE = "environment.json", "test.json"
LIBRARIES = ("torch", "torchvision", "torchmetrics", "numpy", "pyarrow", "scikit-learn")
logger = logging.getLogger("run")


def now() -> str:
    """Return the time in UTC, to the second, as ISO 8601."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def record_process(run_dir: Path, environment: Mapping[str, Any], resumed: Path | None) -> None:
    """Add this process to environment.json, and what git says is changed in the code as a file beside it.

    `resumed` is the checkpoint that the process resumed. Raises RunDirError.
    """
    with writing_to(run_dir):
        processes = _processes(run_dir)
        git = git_state()
        if git is not None and git["is_dirty"] and (diff := git_diff()):
            git["diff"] = f"git{f'.{len(processes) + 1}' if processes else ''}.diff"
            write_atomic(run_dir / git["diff"], diff)
        entry = {
            "started": now(),
            "resumed": resumed.name if resumed else None,
            "argv": sys.argv,
            "git": git,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "libraries": {name: found for name in LIBRARIES if (found := _version(name))},
            "host": socket.gethostname(),
            "pid": os.getpid(),
            **environment,
        }
        write_json({"processes": [*processes, entry]}, run_dir / ENVIRONMENT_FILE)


def record_test(checkpoint: Path, epoch: int | None, result: Mapping[str, float], num_samples: int) -> None:
    """Write test.json beside the `checkpoint` that was tested; only warn where that directory cannot be written to."""
    content = {
        "checkpoint": checkpoint.name,
        "epoch": epoch,
        "metrics": {name: value if math.isfinite(value) else None for name, value in result.items()},
        "num_samples": num_samples,
        "time": now(),
        "argv": sys.argv,
        "git": git_state(),
    }
    try:
        write_json(content, checkpoint.parent / TEST_FILE)
    except OSError as error:
        logger.warning(f"{checkpoint.parent}: the result is not saved: {error.strerror or error}")


def _processes(run_dir: Path) -> list[Any]:
    """Return the processes that are recorded already; none where the file is missing or malformed. Raises OSError."""
    try:
        processes = read_json(run_dir / ENVIRONMENT_FILE)["processes"]
    except (FileNotFoundError, ValueError, RecursionError, TypeError, KeyError):
        return []
    return processes if isinstance(processes, list) else []


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None
