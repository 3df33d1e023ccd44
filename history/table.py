"""The table of runs: what it shows of each, in which order, and which ones."""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Callable, Sequence
from typing import Any

from history.differences import flatten, short_names, unusual
from history.run import Run
from history.text import HistoryError, duration_text, finite, metrics_text, table_text, time_text, value_text

HEADER = ("NAME", "RUN", "TAG", "STATUS", "EPOCH", "BEST", "TEST", "TIME", "STARTED", "COMMIT", "DIFFERS")
COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    **{"=": operator.eq, "!=": operator.ne},
    **{"<": operator.lt, ">": operator.gt, "<=": operator.le, ">=": operator.ge},
}


def facts(run: Run) -> dict[str, Any]:
    """Return what is known of a run, as plain values for JSON; `run_records` adds where it differs from other runs."""
    best, updated, started = run.best, run.updated, run.started
    return {
        "name": run.name,
        "run": run.run_id,
        "tag": run.tag or None,
        "status": run.status,
        "epoch": run.epoch,
        "epochs": run.epochs,
        "best": best._asdict() if best else None,
        "test": run.test_metrics or None,
        "seconds": run.seconds,
        "started": started.isoformat() if started else None,
        "updated": updated.isoformat() if updated else None,
        "commit": run.git.get("commit"),
        "branch": run.git.get("branch"),
        "is_dirty": run.git.get("is_dirty"),
        "path": str(run.path),
        "config": run.config,
    }


def run_records(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return `facts` of each run, with "differs": the values of its config that most of the runs do not have."""
    return [{**facts(run), "differs": values} for run, values in zip(runs, unusual(runs))]


def runs_table(runs: Sequence[Run], width: int | None = None) -> str:
    """Return the table of the runs as text, cut at `width` columns."""
    return table_text(HEADER, [_cells(run, values) for run, values in zip(runs, unusual(runs))], width)


def _cells(run: Run, differences: dict[str, Any]) -> list[str]:
    best, commit = run.best, str(run.git.get("commit") or "")[:7]
    cells = [
        *(run.name, run.run_id, run.tag, run.status),
        f"{'?' if run.epoch is None else run.epoch}/{'?' if run.epochs is None else run.epochs}",
        f"{best.metric} {best.value:.4g} @{best.epoch}" if best else "",
        metrics_text(run.test_metrics),
        duration_text(run.seconds),
        time_text(run.started),
        f"{commit}*" if commit and run.git.get("is_dirty") else commit,
        " ".join(f"{key}={value_text(value)}" for key, value in differences.items()),
    ]
    return [value_text(cell) for cell in cells]


def sort_runs(runs: Sequence[Run], key: str) -> list[Run]:
    """Return the runs by `key`: numbers first, the smallest, or for "best" the best; then texts; then runs without."""

    def rank(found: tuple[Any, Run]) -> tuple[bool, bool, Any]:
        value, run = found
        number = finite(value)
        if number is None:
            return value is None, True, str(value)
        is_highest_best = key == "best" and run.best is not None and run.best.mode == "max"
        return False, False, -number if is_highest_best else number

    return [run for _, run in sorted(zip(_values(runs, key), runs), key=rank)]


def filter_runs(runs: Sequence[Run], condition: str) -> list[Run]:
    """Return the runs for which `condition` holds, such as "status=completed" or "lr<0.01". Raises HistoryError."""
    parts = re.fullmatch(r"([^=<>!]+)(!=|<=|>=|=|<|>)(.*)", condition, re.DOTALL)
    if parts is None:
        raise HistoryError(f"--filter {condition}: give KEY=VALUE, or with !=, <, >, <= or >=", exit_code=2)
    key, sign, wanted = parts.groups()
    return [run for run, value in zip(runs, _values(runs, key.strip())) if _holds(value, sign, wanted.strip())]


def _holds(value: Any, sign: str, wanted: str) -> bool:
    """Compare as numbers where both are, else as text; a missing value is "null", and in no order."""
    if finite(value) is not None:
        try:
            return COMPARISONS[sign](value, float(wanted))
        except ValueError:
            return sign == "!="
    if value is None and sign not in ("=", "!="):
        return False
    return COMPARISONS[sign](value_text(value), wanted)


def _values(runs: Sequence[Run], key: str) -> list[Any]:
    """Return the value that each run has for `key`, the path of a fact or the ending of one: of several the shortest.

    Raises HistoryError.
    """
    flat = [flatten(facts(run)) for run in runs]
    for values, run in zip(flat, runs):
        values["best"] = run.best.value if run.best else None
    known = list(dict.fromkeys(path for values in flat for path in values))
    tops = [path for path in (key, f"config.{key}", f"test.{key}") if path in known]
    found = tops or [path for path in known if path.endswith(f".{key}")]
    depths = [path.count(".") for path in found]
    if depths.count(min(depths, default=0)) > 1 and not tops:
        names = ", ".join(short_names(known)[path] for path in found)
        raise HistoryError(f"{key}: ambiguous: {names}", exit_code=2)
    if not found and runs:
        short = short_names(known)
        near = difflib.get_close_matches(key, [*short.values(), *known], n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(list(known)[:16])}, keys of the config"
        raise HistoryError(f"{key}: no run has a value of this name; {hint}", exit_code=2)
    path = tops[0] if tops else min(found, key=lambda path: path.count("."), default="")
    return [values.get(path) for values in flat]
