"""Values as text: safe for a terminal, short enough for a column."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any


class HistoryError(Exception):
    """Something that the user can put right: the text says where, what came, and what is allowed."""

    def __init__(self, message: str, exit_code: int = 6) -> None:
        """`exit_code` is 6 for what is wrong with a run directory, 2 for the command line."""
        super().__init__(printable(message, 2000))
        self.exit_code = exit_code


def printable(text: object, length: int = 200) -> str:
    r"""Return `text` with what a terminal would obey as "\x1b", and cut in its middle where it is longer."""
    text = str(text)
    text = text if len(text) <= length else f"{text[: length // 2]}…{text[-length // 2 :]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def finite(value: Any) -> float | None:
    """Return `value` where it is a finite number, else None."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and abs(value) < 2**63 and math.isfinite(value) else None


def value_text(value: Any) -> str:
    """Return a value of a config as one writes it after --set, or a number of a metric with 4 digits."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return printable(json.dumps(value, ensure_ascii=False))


def number_text(value: Any) -> str:
    """Return a value of a metric with 4 digits; "" where it is no finite number."""
    number = finite(value)
    return "" if number is None else f"{number:.4g}"


def metrics_text(metrics: dict[str, Any]) -> str:
    """Return "accuracy 0.97, loss 0.1" of metrics by name."""
    return ", ".join(f"{printable(name)} {number_text(value) or 'nan'}" for name, value in metrics.items())


def duration_text(seconds: float | None) -> str:
    """Return a duration in its two largest units, such as "2h 05m"."""
    if seconds is None:
        return ""
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if days:
        return f"{days:.0f}d {hours % 24:02.0f}h"
    if hours:
        return f"{hours:.0f}h {minutes % 60:02.0f}m"
    return f"{minutes:.0f}m {seconds % 60:02.0f}s" if minutes else f"{seconds:.0f}s"


def time_text(time: datetime | None) -> str:
    """Return date and time of day, as the clock on the wall shows it."""
    return f"{time.astimezone():%Y-%m-%d %H:%M}" if time else ""


def size_text(size: float) -> str:
    """Return a number of bytes with its unit."""
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def table_text(header: Sequence[str], rows: Sequence[Sequence[str]], width: int | None = None) -> str:
    """Return rows under a header in columns that fit, without those that are empty; lines cut at `width`."""
    used = [i for i in range(len(header)) if any(row[i] for row in rows)]
    lines = [[row[i] for i in used] for row in [header, *rows]]
    widths = [max(map(len, column)) for column in zip(*lines)]
    text = ["  ".join(f"{cell:<{size}}" for cell, size in zip(line, widths)).rstrip() for line in lines]
    return "\n".join(line if width is None or len(line) <= width else f"{line[: width - 1]}…" for line in text)
