"""Runs side by side in a terminal: how their configs differ, their metrics, their curves."""

from __future__ import annotations

from collections.abc import Sequence

from history.differences import differing
from history.run import Run
from history.text import finite, metrics_text, number_text, table_text, time_text, value_text

BARS, CURVE_WIDTH = "▁▂▃▄▅▆▇█", 40
NOT_METRICS = {"kind", "epoch", "global_step"}


def labels(runs: Sequence[Run]) -> list[str]:
    """Return a unique label for each run: its name, its id or both, with its tag."""
    names, ids = [run.name for run in runs], [run.run_id for run in runs]
    both, paths = [f"{name}/{run_id}" for name, run_id in zip(names, ids)], [str(run.path) for run in runs]
    choices = (names, ids if len(set(names)) == 1 else both, paths)
    unique = next((texts for texts in choices if len(set(texts)) == len(runs)), paths)
    return [value_text(f"{text} ({run.tag})" if run.tag else text) for text, run in zip(unique, runs)]


def metric_names(runs: Sequence[Run]) -> list[str]:
    """Return the names of all values in the epoch logs, in their order."""
    names = dict.fromkeys(name for run in runs for log in run.epoch_log for name in log)
    return [name for name in names if name not in NOT_METRICS]


def metric_rows(runs: Sequence[Run], names: Sequence[str]) -> list[list[str]]:
    """Return for each run a row for its best epoch and one for its last, or one row where they are the same.

    A row is the run's name, the epoch, and the values of `metric_names`.
    """
    metrics, rows = metric_names(runs), []
    for run, name in zip(runs, names):
        last, best_epoch = run.epoch_log[-1:], run.best.epoch if run.best else None
        best = [log for log in run.epoch_log if log.get("epoch") == best_epoch][:1]
        shown = [("best and last", last)] if best == last else [("best", best), ("last", last)]
        for what, found in shown:
            rows += [
                [name, f"{what}, {log.get('epoch')}", *(number_text(log.get(key)) for key in metrics)] for log in found
            ]
    return [[value_text(cell) for cell in row] for row in rows]


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
    text = table_text(("RUN", "EPOCH", *map(value_text, metric_names(runs))), metric_rows(runs, names), width)
    tested = [(name, run.test_metrics) for name, run in zip(names, runs) if run.test_metrics]
    tests = table_text(("RUN", "TEST"), [(name, metrics_text(metrics)) for name, metrics in tested], width)
    return f"{text}\n\n{tests}" if tested else text


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
