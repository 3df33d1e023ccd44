"""The values of an epoch, as a row of a table for a terminal, or as a line for a file."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from logger.console import terminal_width
from utils.errors import printable

SHORT = {"perf/samples_per_sec": "samples/s", "lr/group0": "lr"}
LINE_WIDTH = 120
NUMBER_WIDTH = 9  # of 0.0001234 and 1.234e-05


def epoch_line(start: str, log: dict[str, float], monitored: str, is_best: bool) -> str:
    """Return what an epoch gave in one line, for files and pipes: of many values those that matter most."""
    for count in range(len(log), -1, -1):
        text = named({name: log[name] for name in _most_important(log, monitored, count)}, "  ")
        line = f"{start}  {text}{_hidden(len(log) - count)}{'  (best)' if is_best else ''}"
        if len(line) <= LINE_WIDTH:
            break
    return line


def epoch_row(start: str, log: dict[str, float], monitored: str) -> tuple[str, str]:
    """Return (header, row) of the table of epochs, which is as wide as the terminal allows."""
    for count in range(len(log), -1, -1):
        names, hidden = _most_important(log, monitored, count), _hidden(len(log) - count)
        widths = [max(len(SHORT.get(name, name)), NUMBER_WIDTH) for name in names]
        header = f"{'epoch':>{max(5, len(start))}}"
        header += "".join(f"  {SHORT.get(name, name):>{width}}" for name, width in zip(names, widths))
        if len(header) + max(len(hidden), len("  best")) < terminal_width():
            break
    row = f"{start:>5}" + "".join(f"  {_number(name, log[name]):>{width}}" for name, width in zip(names, widths))
    return printable(header + hidden, length=sys.maxsize), printable(row, length=sys.maxsize)


def _hidden(count: int) -> str:
    return f"  (+{count} in metrics.jsonl)" if count else ""


def named(values: dict[str, float], separator: str) -> str:
    """Return names and values as text."""
    return printable(
        separator.join(f"{SHORT.get(k, k)} {_number(k, v)}" for k, v in values.items()), length=sys.maxsize
    )


def _number(name: str, value: float) -> str:
    return f"{value:,.0f}" if name == "perf/samples_per_sec" else f"{value:.4g}"


def _most_important(log: dict[str, float], monitored: str, count: int) -> Sequence[str]:
    """Return `count` names, in the order of the log: the monitored one, losses, validation, then the rest."""

    def importance(name: str) -> int:
        ranks = [name == monitored, name in ("loss", "val_loss"), name.startswith("val_"), "/" not in name, True]
        return ranks.index(True)

    chosen = set(sorted(log, key=importance)[:count])
    return [name for name in log if name in chosen]
