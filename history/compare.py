"""Runs side by side in a terminal: how their configs differ, their metrics, their curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from history.differences import differing
from history.run import Run
from history.text import finite, table_text, time_text, value_text

BARS, CURVE_WIDTH = "▁▂▃▄▅▆▇█", 40
NOT_METRICS = {"kind", "epoch", "global_step"}


def labels(runs: Sequence[Run]) -> list[str]:
    """Return a name for each run that no other has: its name, or its id, or both."""
    names, ids = [run.name for run in runs], [run.run_id for run in runs]
    for candidates in (names, ids, [f"{name}/{run_id}" for name, run_id in zip(names, ids)]):
        if len(set(candidates)) == len(runs):
            return [value_text(candidate) for candidate in candidates]
    return [value_text(run.path) for run in runs]


def metric_names(runs: Sequence[Run]) -> list[str]:
    """Return the names of all values that the epochs gave, in their order."""
    names = dict.fromkeys(name for run in runs for log in run.epoch_log for name in log)
    return [name for name in names if name not in NOT_METRICS]


def best_and_last(run: Run, metric: str) -> tuple[float | None, float | None]:
    """Return the values of `metric` in the run's best epoch, None without one, and in its last epoch."""
    best_epoch = run.best.epoch if run.best else None
    at_best = next((log for log in run.epoch_log if log.get("epoch") == best_epoch), {})
    last = run.epoch_log[-1] if run.epoch_log else {}
    return finite(at_best.get(metric)), finite(last.get(metric))


def comparison(runs: Sequence[Run], width: int | None = None) -> str:
    """Return the comparison of the runs as text, cut at `width` columns."""
    names = labels(runs)
    heads = [[name, run.status, time_text(run.started), str(run.path)] for name, run in zip(names, runs)]
    differences = [[key, *map(value_text, values)] for key, values in differing(runs).items()]
    sections = [
        table_text(("RUN", "STATUS", "STARTED", "DIRECTORY"), heads, width),
        table_text(("CONFIG", *names), differences, width) if differences else "CONFIG\nno differences",
        _metrics(runs, names, width),
        _curves(runs, names, width),
    ]
    return "\n\n".join(section for section in sections if section)


def _metrics(runs: Sequence[Run], names: Sequence[str], width: int | None) -> str:
    header = ["METRIC", *(f"{name} {what}" for name in names for what in ("best", "last"))]
    rows = [[name, *(_number(v) for run in runs for v in best_and_last(run, name))] for name in metric_names(runs)]
    tests = dict.fromkeys(name for run in runs for name in _test(run))
    rows += [
        [f"test {name}", *(cell for run in runs for cell in (_number(_test(run).get(name)), ""))] for name in tests
    ]
    rows = [[value_text(cell) for cell in row] for row in rows]
    return table_text(header, rows, width) + '\n"best" is in the best epoch of the run, as trainer.monitor says' * bool(
        rows
    )


def _curves(runs: Sequence[Run], names: Sequence[str], width: int | None) -> str:
    rows = []
    for metric in metric_names(runs):
        curves = [[finite(log.get(metric)) for log in run.epoch_log] for run in runs]
        known = [value for curve in curves for value in curve if value is not None]
        if not known or metric.startswith(("perf/", "lr/")):
            continue
        low, high = min(known), max(known)
        for i, (name, curve) in enumerate(zip(names, curves)):
            scale = f"{low:.4g} to {high:.4g}" if i == 0 else ""
            rows.append([value_text(metric) if i == 0 else "", name, sparkline(curve, low, high), scale])
    return table_text(("CURVE", "RUN", "EPOCHS", "SCALE"), rows, width) if rows else ""


def sparkline(values: Sequence[float | None], low: float, high: float) -> str:
    """Return a curve of at most 40 bars between `low` and `high`, each the mean of a stretch; a gap where none is."""
    num_bars = min(len(values), CURVE_WIDTH)
    bars = ""
    for bar in range(num_bars):
        stretch = values[bar * len(values) // num_bars : (bar + 1) * len(values) // num_bars]
        known = [value for value in stretch if value is not None]
        height = (sum(known) / len(known) - low) / (high - low) if known and high > low else 0
        bars += BARS[min(max(round(height * 7), 0), 7)] if known else " "
    return bars


def _test(run: Run) -> dict[str, Any]:
    metrics = run.test.get("metrics")
    return metrics if isinstance(metrics, dict) else {}


def _number(value: Any) -> str:
    number = finite(value)
    return "" if number is None else f"{number:.4g}"
