"""The tables of a page: what is known of runs, side by side or one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from history.compare import metric_names, metric_rows
from history.differences import differing, flatten
from history.files import read_diff
from history.page import Html, folded, table
from history.run import Run
from history.text import duration_text, metrics_text, number_text, time_text, value_text

MAX_ROWS = 200


def summary(runs: Sequence[Run], names: Sequence[str]) -> Html:
    """Return a table of the main facts of each run; of a single run, with a row for each fact."""
    header = ("Run", "Tag", "Status", "Epoch", "Best", "Test", "Time", "Started", "Commit")
    rows = [(name, *_facts(run)) for run, name in zip(runs, names)]
    used = [i for i in range(len(header)) if any(row[i] for row in rows)]
    if len(runs) == 1:
        return table("Summary", ("What", "Value"), [(header[i], rows[0][i]) for i in used[1:]])
    used = [i for i in used if header[i] != "Tag"]  # which the names have already
    return table("Summary", [header[i] for i in used], [[row[i] for i in used] for row in rows], "short")


def comparison_tables(runs: Sequence[Run], names: Sequence[str]) -> list[Html]:
    """Return where the configs of the runs differ, and each metric in their best and last epochs."""
    differences = [(key, *map(value_text, values)) for key, values in differing(runs).items()]
    header = ("Run", "Epoch", *map(value_text, metric_names(runs)))
    same = Html("<p>The configs do not differ.</p>")
    return [
        table("Config, where it differs", ("Key", *names), differences, "short") if differences else same,
        table("Metrics", header, metric_rows(runs, names), "short"),
    ]


def values_table(run: Run) -> Html:
    """Return the values of every epoch; of a long run, of epochs at even distances, with the last one."""
    log, names = run.epoch_log, metric_names([run])
    every = -(-len(log) // MAX_ROWS)
    shown = log[::-1][::every][::-1]
    rows = [[value_text(record.get("epoch")), *(number_text(record.get(name)) for name in names)] for record in shown]
    title = "Values of each epoch" if every == 1 else f"Values of every {every}th epoch"
    return folded(title, table(title, ("Epoch", *map(value_text, names)), rows))


def config_table(run: Run) -> Html:
    """Return every key of the config with its value."""
    rows = [(value_text(key), value_text(value)) for key, value in flatten(run.config).items()]
    return folded(f"All {len(rows)} keys", table("Config of the run, defaults included", ("Key", "Value"), rows))


def environment_table(run: Run) -> Html:
    """Return what each process of the run had: libraries, device, arguments."""
    if not run.processes:
        return Html("<p>Not recorded: the run is of an earlier version.</p>")
    flat = [dict(_environment(process)) for process in run.processes]
    keys = dict.fromkeys(key for process in flat for key in process)
    heads = ["Process", *(str(i + 1) if i else "1, the first" for i in range(len(flat)))]
    rows = [[value_text(key), *(process.get(key, "") for process in flat)] for key in keys]
    return table("Processes that trained the run", heads if len(flat) > 1 else ("What", "Value"), rows)


def git_tables(run: Run) -> list[Html]:
    """Return which commit each process ran and what had changed since; nothing without git."""
    known = [(i, process["git"]) for i, process in enumerate(run.processes) if isinstance(process.get("git"), dict)]
    if not known:
        return []
    rows = [(f"process {i + 1}", _commit(git), value_text(git.get("branch") or ""), _changes(git)) for i, git in known]
    parts = [table("Code", ("Process", "Commit", "Branch", "Changed since"), rows)]
    for name, process in {str(git["diff"]): run.processes[i] for i, git in known if git.get("diff")}.items():
        if text := read_diff(run.path, process):
            pre = Html('<pre role="group" tabindex="0" aria-label="{}">{}</pre>').format(name, text)
            parts.append(folded(f"What was changed: {name}", pre))
    return parts


def _facts(run: Run) -> tuple[str, ...]:
    best, git = run.best, run.git
    error = f": {value_text(run.state['error'])}" if run.state.get("error") else ""
    return (
        value_text(run.tag),
        value_text(run.status) + error,
        f"{'?' if run.epoch is None else run.epoch} of {'?' if run.epochs is None else run.epochs}",
        value_text(f"{best.metric} {best.value:.4g} in epoch {best.epoch}") if best else "",
        metrics_text(run.test_metrics),
        duration_text(run.seconds),
        time_text(run.started),
        _commit(git) + (", changed" if git.get("is_dirty") else ""),
    )


def _environment(process: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in flatten({k: v for k, v in process.items() if k != "git"}).items():
        if key == "argv" and isinstance(value, list):
            value = " ".join(map(str, value))
        yield key.removeprefix("libraries."), value_text("" if value is None else value)


def _commit(git: dict[str, Any]) -> str:
    return value_text(str(git.get("commit") or "")[:12])


def _changes(git: dict[str, Any]) -> str:
    untracked = git.get("untracked")
    names = ", ".join(map(str, untracked)) if isinstance(untracked, list) and untracked else ""
    return value_text(("yes" if git.get("is_dirty") else "no") + (f"; not tracked: {names}" if names else ""))
