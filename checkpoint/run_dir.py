"""Run directories: making a new one, finding the newest, going back in one."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Any

from checkpoint.file import BEST, LATEST, PREVIOUS, checkpoint_files, is_whole, sealed_position
from checkpoint.run_lock import LOCK_FILE, refuse_if_locked
from checkpoint.writer import link
from history.alive import is_held
from utils.errors import ConfigError, RunDirError, reading, writing_to
from utils.file_lock import file_lock
from utils.files import read_json
from utils.position import Position

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

WHY = {"superseded": "later than where the run resumes", "damaged": "its content is not what was written"}
logger = logging.getLogger("run")


def run_dir_of(save_dir: str, name: str, run_id: str | None) -> Path:
    """Return the directory of a new run, by default named for the time. Raises ConfigError where `name` is a link."""
    experiment = Path(save_dir) / name
    if os.path.islink(experiment):  # Path.is_symlink raises where a directory is closed
        raise ConfigError(f"name: {experiment} is a symbolic link; runs stay inside trainer.save_dir")
    return experiment / (run_id or f"{datetime.now():%Y%m%d_%H%M%S}")


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


def check_file_handles(num_workers: int) -> None:
    """Raise RunDirError where this process may open too few files for logs, checkpoints and `num_workers` workers.

    Where they run out in the middle, workers wait for ever.
    """
    if resource is None or not os.path.isdir("/dev/fd"):
        return
    limit, needed = resource.getrlimit(resource.RLIMIT_NOFILE)[0], 16 + 16 * num_workers
    try:
        num_open = len(os.listdir("/dev/fd"))
    except OSError:  # not even that
        num_open = limit
    if limit != resource.RLIM_INFINITY and limit - num_open < needed:
        raise RunDirError(
            f"too few file handles: {limit}, {num_open} of them in use; give {num_open + needed} by ulimit -n"
        )


@contextmanager
def first_alone(experiment_dir: Path) -> Iterator[None]:
    """Let one process at a time make the first run of `experiment_dir`. Raises RunDirError where there is one now."""
    with writing_to(experiment_dir):
        experiment_dir.mkdir(parents=True, exist_ok=True)
        with file_lock(experiment_dir / LOCK_FILE, on_wait=lambda: None):
            try:
                if run_dir := newest_run(experiment_dir):
                    refuse_if_locked(run_dir)
                    raise RunDirError(f"{run_dir}: was started meanwhile; start again to resume it")
                yield
            finally:
                with suppress(OSError):  # Windows deletes no file that is open
                    (experiment_dir / LOCK_FILE).unlink()


def newest_run(experiment_dir: Path) -> Path | None:
    """Return the run under `experiment_dir` that was last started or resumed and has a checkpoint, or None.

    One that another process has just started comes first. Runs for debugging, on a few batches, do not count. Raises
    RunDirError where something may not be read: it may be the newest.
    """
    with reading(experiment_dir, RunDirError):
        dirs = [path for path in experiment_dir.iterdir() if path.is_dir()] if experiment_dir.is_dir() else []
        runs = [path for path in dirs if checkpoint_files(path) and (path / "config.json").exists()]
        starting = [path for path in dirs if path not in runs and is_held(path)]
        runs = [run for run in runs if not _is_debugging(run)]
        return max(starting or runs, key=_started_ns, default=None)


def _started_ns(run_dir: Path) -> int:
    config = run_dir / "config.json"
    return (config if config.exists() else run_dir).stat().st_mtime_ns


def _is_debugging(run_dir: Path) -> bool:
    trainer = saved_config(run_dir).get("trainer")
    return isinstance(trainer, dict) and bool(trainer.get("limit_batches") or trainer.get("overfit_batches"))


def saved_config(run_dir: Path) -> dict[str, Any]:
    """Return the config that a run saved. Raises RunDirError where that cannot be read."""
    path = config_file(run_dir)
    with reading(path, RunDirError):
        config = read_json(path)
    if not isinstance(config, dict):
        raise RunDirError(f"{path}: is not a config")
    return config


def config_file(run_dir: Path) -> Path:
    """Return the path of the config that a run saved. Raises RunDirError where it cannot be read."""
    path = run_dir / "config.json"
    if not path.is_file():
        raise RunDirError(f"{path}: is {'no regular file' if path.exists() else 'missing'}; give another with -c")
    if not os.access(path, os.R_OK):
        raise RunDirError(f"{path}: cannot be read: Permission denied")
    return path


def set_aside_later(chosen: Path, position: Position, best_epoch: int) -> None:
    """Rename the checkpoints of a run that are later than `position`, that of the `chosen` one, or damaged.

    None of them must be taken for the newest again: they belong to log files that are now cut back and rewritten.
    Nothing is deleted. The chosen one, and the checkpoint of `best_epoch` where there is one, get their names again.
    """
    here = (position.epoch, position.step_in_epoch)
    for path in checkpoint_files(chosen.parent):
        if sealed_position(path) < here or path.samefile(chosen):
            continue
        if not is_whole(path):
            _set_aside(path, "damaged")
        elif sealed_position(path) > here:
            _set_aside(path, "superseded")
    _finish_save(chosen, best_epoch)


def _finish_save(chosen: Path, best_epoch: int) -> None:
    """Make the names of the save of `chosen` that are missing, or after a kill in the middle of it those of others."""
    best = chosen.with_name(f"checkpoint-epoch{best_epoch}.pth")
    for file, name in ((best, BEST), (chosen, LATEST)):
        other = chosen.with_name(name)
        is_earlier = file.exists() and other.exists() and sealed_position(other) < sealed_position(file)
        if is_earlier and name == LATEST:
            link(other, PREVIOUS)
        if is_earlier or (file.exists() and not other.exists()):
            link(file, name)


def _set_aside(path: Path, why: str) -> None:
    names = (path.with_name(f"{path.name}.{why}{i or ''}") for i in range(10_000))
    name = next(name for name in names if not os.path.lexists(name))
    logger.warning(f"set aside {path.name} as {name.name}: {WHY[why]}")
    path.rename(name)


def adopt_resolved(config: dict[str, Any], saved: dict[str, Any]) -> None:
    """Replace every "auto" in `config` by the value that it resolved to in the config that a run saved."""
    for key, value in config.items():
        if isinstance(value, dict) and isinstance(saved.get(key), dict):
            adopt_resolved(value, saved[key])
        elif value == "auto" and key in saved:
            config[key] = saved[key]
