"""The curves of runs as plain data for plotly.js: which charts there are, and what is in each."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from history.compare import NOT_METRICS, metric_names
from history.run import Run
from history.text import finite

MAX_POINTS = 1000
NUM_COLORS = 8  # of style.css


def charts(runs: Sequence[Run], names: Sequence[str]) -> list[dict[str, Any]]:
    """Return {"title", "hover", "traces"} of each metric; "val_loss" and "loss" share the chart "loss".

    A trace has x (the global step), y, epoch, name, color (a variable of style.css), and dash. The color says with one
    run what a curve is, with several which run it is of.
    """
    step_records = (record for run in runs for record in run.records if record.get("kind") == "step")
    step_names = [name for record in step_records for name in record if name not in NOT_METRICS]
    metrics = dict.fromkeys(metric.removeprefix("val_") for metric in [*metric_names(runs), *step_names])
    found = []
    for metric in sorted(metrics, key=lambda name: name.startswith(("perf/", "lr/"))):
        if len(runs) == 1:
            traces = _traces_of_kinds(runs[0], metric)
        else:
            numbered = enumerate(zip(runs, names))
            traces = [t for i, (run, name) in numbered for t in _traces_of_run(run, metric, name, _color(i))]
        if traces := [trace for trace in traces if trace]:
            hover = "x unified" if len(runs) == 1 else "closest"  # one box for all curves is too big for many
            found.append({"title": metric, "hover": hover, "traces": traces})
    return found


def legend(runs: Sequence[Run], names: Sequence[str]) -> list[tuple[str, str]]:
    """Return color and meaning of each kind of curve."""
    if len(runs) > 1:
        return [(_color(number), name) for number, name in enumerate(names)]
    return [("c0", "validation"), ("c1", "training, mean of an epoch"), ("step", "training, single steps")]


def _color(number: int) -> str:
    return f"c{number % NUM_COLORS}"


def _traces_of_kinds(run: Run, metric: str) -> list[dict[str, Any]]:
    steps = [record for record in run.records if record.get("kind") == "step"]
    return [
        _trace(steps, metric, "step", "step"),  # first, and so behind the rest: they are noisy
        _trace(run.epoch_log, metric, "training", "c1"),
        _trace(run.epoch_log, f"val_{metric}", "validation", "c0"),
    ]


def _traces_of_run(run: Run, metric: str, name: str, color: str) -> list[dict[str, Any]]:
    if not any(f"val_{metric}" in log for log in run.epoch_log):
        return [_trace(run.epoch_log, metric, name, color)]
    return [
        _trace(run.epoch_log, f"val_{metric}", f"{name}, validation", color),
        _trace(run.epoch_log, metric, f"{name}, training", color, "dot"),
    ]


def _trace(records: list[dict[str, Any]], key: str, name: str, color: str, dash: str = "solid") -> dict[str, Any]:
    """Return the curve of `key`, thinned out; {} where it has no value."""
    points = [
        (step, finite(record.get(key)), record.get("epoch"))
        for record in records
        if key in record and (step := finite(record.get("global_step"))) is not None
    ]
    if not any(value is not None for _, value, _ in points):
        return {}
    xs, ys, epochs = zip(*_thinned(points))
    return {"x": xs, "y": ys, "epoch": epochs, "name": html.escape(name), "color": color, "dash": dash}


def _thinned(points: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Return at most about 1,000 points: the first and the last, and of each stretch the lowest and the highest."""
    if len(points) <= MAX_POINTS:
        return points
    num_stretches = MAX_POINTS // 2
    kept = {0, len(points) - 1}
    for i in range(num_stretches):
        stretch = range(i * len(points) // num_stretches, (i + 1) * len(points) // num_stretches)
        known = [j for j in stretch if points[j][1] is not None]
        if known:
            kept |= {min(known, key=lambda j: points[j][1]), max(known, key=lambda j: points[j][1])}
    return [points[j] for j in sorted(kept)]
