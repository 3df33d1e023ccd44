"""Finds runs: all under a directory, or the one that a path, an id or a name refers to."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

from history.files import METRICS, STATUS
from history.run import Broken, Run, read_run
from history.text import HistoryError

FOLDS = "kfold.json"  # of a directory with what several runs give together


def all_runs(root: Path) -> tuple[list[Run], list[Broken]]:
    """Return the runs under `root`, the newest first, and what lies in a run's place but cannot be read as one.

    `root` is a save_dir, a directory of one name in it, or a run. Raises HistoryError where it cannot be read.
    """
    runs, broken = [], []
    for path in run_dirs(root):
        try:
            runs.append(read_run(path))
        except HistoryError as error:
            broken.append(Broken(path, str(error).removeprefix(f"{path}").lstrip("/: ")))
    never = datetime.min.replace(tzinfo=timezone.utc)
    return sorted(runs, key=lambda run: (run.started or never, run.run_id), reverse=True), broken


def run_dirs(root: Path) -> Iterator[Path]:
    """Yield the directories, and links, that lie where runs do. Follows no link below `root`. Raises HistoryError."""
    if not root.is_dir():
        raise HistoryError(f"{root}: {'is not a directory' if root.exists() else 'there is no such directory'}")
    if _looks_like_a_run(root):
        yield root
        return
    children = _children(root)
    is_of_one_name = any(_looks_like_a_run(child) for child in children)
    for child in children:
        if child.is_symlink() or is_of_one_name:
            yield child
            continue
        try:
            yield from _children(child)
        except HistoryError:
            yield child  # it may hold runs, and is named with the reason


def find_run(text: str, root: Path) -> Run:
    """Return the run that `text` refers to: a path, NAME/ID or ID under `root`, or a name, which means its newest run.

    Raises HistoryError where there is none, or where several runs have the id.
    """
    if text and Path(text).is_dir() and _looks_like_a_run(Path(text)):
        return read_run(Path(text))
    paths = list(run_dirs(root)) if root.is_dir() else []
    named = [path for path in paths if text.rstrip("/") in (path.name, f"{path.parent.name}/{path.name}")]
    if len(named) > 1:
        raise HistoryError(f"{text}: is the id of several runs: {', '.join(map(str, named))}", exit_code=2)
    if named:
        return read_run(named[0])
    experiment = Path(text) if Path(text).is_dir() else root / text
    if text and experiment.is_dir() and (runs := all_runs(experiment)[0]):
        return runs[0]
    known = {name for path in paths for name in (path.name, path.parent.name)}
    near = difflib.get_close_matches(text, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else "see: python runs.py list"
    raise HistoryError(
        f"{text}: is not a run directory, and no run under {root} has this name or id; {hint}", exit_code=2
    )


def _looks_like_a_run(path: Path) -> bool:
    return os.path.exists(path / STATUS) or os.path.exists(path / METRICS)  # Path.exists raises in a closed directory


def _children(directory: Path) -> list[Path]:
    """Return the directories and links in `directory` that are not hidden."""
    try:
        visible = [path for path in directory.iterdir() if not path.name.startswith(".")]
        dirs = (path for path in visible if path.is_symlink() or path.is_dir())
        return sorted(path for path in dirs if not os.path.exists(path / FOLDS))
    except OSError as error:
        raise HistoryError(f"{directory}: cannot be read: {error.strerror or error}") from None
