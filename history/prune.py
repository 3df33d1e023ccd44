"""Which runs and checkpoints to delete, and deleting them."""

from __future__ import annotations

import os
import re
import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from history.alive import held
from history.run import Run, read_run
from history.text import HistoryError

CHECKPOINT = re.compile(r"checkpoint-epoch[1-9]\d*\.pth|previous\.pth")  # never latest.pth or model_best.pth
ENDED = ("completed", "early_stopped", "failed", "pruned")
RESUMABLE = ("preempted", "killed")


@dataclass(frozen=True)
class Deletion:
    """A run to delete, or where `files` are given, those checkpoints of it."""

    run: Run
    reason: str
    files: tuple[Path, ...] = ()

    @property
    def size(self) -> int:
        """How many bytes that frees: a checkpoint may have several names, and frees nothing while one stays."""
        names: dict[tuple[int, int], list[os.stat_result]] = defaultdict(list)
        for path in self.files or (path for path in self.run.path.rglob("*") if path.is_file()):
            info = path.lstat()
            names[info.st_dev, info.st_ino].append(info)
        return sum(found[0].st_size for found in names.values() if len(found) >= found[0].st_nlink)


def best_runs(runs: Sequence[Run], count: int) -> set[Path]:
    """Return the paths of the `count` best runs of each name.

    Runs with another trainer.monitor have a list of their own. A run on a few batches, for debugging, is in none.
    """
    ranked: dict[tuple[str, str, str], list[tuple[float, Path]]] = defaultdict(list)
    for run in runs:
        if run.best and not run.is_for_debugging:
            value = -run.best.value if run.best.mode == "max" else run.best.value
            ranked[run.name, run.best.metric, run.best.mode].append((value, run.path))
    return {path for values in ranked.values() for _, path in sorted(values)[:count]}


def runs_to_delete(runs: Sequence[Run], keep_best: int, older_than: float | None) -> list[Deletion]:
    """Return the runs to delete: those that have ended, are not among the best of their name, and are old enough.

    `older_than` is in days. Without it, runs that can still go on stay, and so do the runs of a name none of which
    has a best epoch: which of them is the best is not known.
    """
    kept = best_runs(runs, keep_best)
    ranked_names = {run.name for run in runs if run.path in kept}
    deletions = []
    for run in runs:
        if older_than is None:
            goes, reason = (
                run.status in ENDED and (run.name in ranked_names or not keep_best),
                "not among the best",
            )
        else:
            age = datetime.now(timezone.utc) - run.updated if run.updated else timedelta(0)
            goes = run.status in ENDED + RESUMABLE and age > timedelta(days=older_than)
            reason = f"{age.days} days old"
        if goes and run.path not in kept:
            deletions.append(Deletion(run, f"{run.status}, {reason}"))
    return deletions


def checkpoints_to_delete(runs: Sequence[Run]) -> list[Deletion]:
    """Return for each run that has ended its checkpoints beside the best and the latest one; of sharded runs none."""
    deletions = []
    for run in runs:
        files = tuple(sorted(path for path in run.path.iterdir() if CHECKPOINT.fullmatch(path.name) and path.is_file()))
        is_whole = (run.path / "latest.pth").is_file() and not any(run.path.glob("shards-*"))  # which files share
        if files and is_whole and run.status in ENDED:
            deletions.append(
                Deletion(run, f"{len(files)} checkpoint{'s' * (len(files) > 1)} beside best and latest", files)
            )
    return deletions


def delete(deletion: Deletion, root: Path) -> None:
    """Delete a run under `root`, or its checkpoints. Follows no link.

    Raises HistoryError where it has changed, lies elsewhere, or another process holds it.
    """
    path = deletion.run.path
    if not path.resolve().is_relative_to(root.resolve()) or path.absolute().parent.is_symlink():
        raise HistoryError(f"{path}: lies outside {root}; not deleted")
    try:
        with held(path) as is_ours:
            if read_run(path).state != deletion.run.state or not is_ours:
                raise HistoryError(f"{path}: changed or was resumed meanwhile; not deleted")
            for file in deletion.files or sorted(path.glob("*.pth")):  # these first: what is interrupted stays a run
                file.unlink()
            if not deletion.files:
                shutil.rmtree(path)
    except OSError as error:
        raise HistoryError(f"{path}: cannot be deleted: {error.strerror or error}") from None
