"""Run directories: making a new one, finding the newest, going back in one."""

from __future__ import annotations

import logging
from itertools import chain
from pathlib import Path
from typing import Any

from checkpoint.file import BEST, checkpoint_files, sealed_position
from checkpoint.writer import link
from utils.files import read_json
from utils.position import Position

logger = logging.getLogger("run")


def make_new_dir(path: Path) -> Path:
    """Make the directory `path`, or where it is there already, the first free of path-2, path-3 and so on.

    Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for candidate in chain([path], (path.with_name(f"{path.name}-{i}") for i in range(2, 10_000))):
        try:
            candidate.mkdir()
            return candidate
        except FileExistsError:
            continue
    raise FileExistsError(17, "every name is taken", str(path))


def newest_run(experiment_dir: Path) -> Path | None:
    """Return the run under `experiment_dir` that was last started or resumed and has a checkpoint, or None.

    Runs for debugging, on a few batches, do not count.
    """
    runs = [path.parent for path in experiment_dir.glob("*/config.json") if checkpoint_files(path.parent)]
    runs = [run for run in runs if not _is_debugging(run)]
    return max(runs, key=lambda run: (run / "config.json").stat().st_mtime_ns, default=None)


def _is_debugging(run_dir: Path) -> bool:
    trainer = read_json(run_dir / "config.json").get("trainer", {})
    return bool(trainer.get("limit_batches") or trainer.get("overfit_batches"))


def set_aside_later(run_dir: Path, position: Position, best_epoch: int) -> None:
    """Rename the checkpoints that are later than `position`, or unreadable: what going or falling back leaves behind.

    None must be taken for the newest again: they know log files that are now cut back and written again. Nothing is
    deleted. The checkpoint of `best_epoch`, where there is one, becomes the best again.
    """
    here = (position.epoch, position.step_in_epoch)
    for path in checkpoint_files(run_dir):
        if sealed_position(path) > here:
            logger.warning(f"set aside {path.name}: later than where the run goes on, or damaged")
            names = (path.with_name(f"{path.name}.superseded{i or ''}") for i in range(10_000))
            path.rename(next(name for name in names if not name.exists()))
    best = run_dir / f"checkpoint-epoch{best_epoch}.pth"
    if best.exists() and not (run_dir / BEST).exists():
        link(best, BEST)


def adopt_resolved(config: dict[str, Any], saved: dict[str, Any]) -> None:
    """Replace every "auto" in `config` by the value that it resolved to in the config that a run saved."""
    for key, value in config.items():
        if isinstance(value, dict) and isinstance(saved.get(key), dict):
            adopt_resolved(value, saved[key])
        elif value == "auto" and key in saved:
            config[key] = saved[key]
