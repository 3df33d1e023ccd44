"""Run directories: making a new one, finding the newest, going back in one."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from utils.checkpoint import sealed_step

logger = logging.getLogger("run")


def make_new_dir(path: Path) -> Path:
    """Make the directory `path`, or where it is there already, the first free of path-2, path-3 and so on.

    Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for candidate in (path, *(path.with_name(f"{path.name}-{i}") for i in range(2, 10_000))):
        try:
            candidate.mkdir()
            return candidate
        except FileExistsError:
            continue
    raise FileExistsError(17, "every name is taken", str(path))


def newest_run(experiment_dir: Path) -> Path | None:
    """Return the run under `experiment_dir` that was last started or resumed and has a checkpoint, or None."""
    runs = [path.parent for path in experiment_dir.glob("*/config.json") if any(path.parent.glob("*.pth"))]
    return max(runs, key=lambda run: (run / "config.json").stat().st_mtime_ns, default=None)


def set_aside_later(run_dir: Path, global_step: int) -> None:
    """Rename the checkpoints that are later than `global_step`, or unreadable, so that none is taken for the newest.

    That is what going back to an earlier checkpoint, and falling back to one, leave behind. Nothing is deleted.
    """
    for path in sorted(run_dir.glob("*.pth")):
        if sealed_step(path) > global_step:
            logger.warning(f"set aside {path.name}: later than step {global_step}, where the run goes on, or damaged")
            path.rename(path.with_name(f"{path.name}.superseded"))


def adopt_resolved(config: dict[str, Any], saved: dict[str, Any]) -> None:
    """Give every value of `config` that is "auto" what it came to in the config that a run saved, in place."""
    for key, value in config.items():
        if isinstance(value, dict) and isinstance(saved.get(key), dict):
            adopt_resolved(value, saved[key])
        elif value == "auto" and key in saved:
            config[key] = saved[key]
