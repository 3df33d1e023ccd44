"""Telling where in a CSV file the first mistake stands, when its fast reader has stopped at one."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
FLOAT32_END = 2.0**128 - 2.0**103  # from here on a number rounds to infinity in float32


def first_mistake(
    path: Path, header: list[str], columns: list[str], delimiter: str, start: int, first_row: int
) -> str | None:
    """Return what is ragged, or in one of `columns` no finite float32, with its row and column; or None.

    Looks row by row from byte `start` on, where the row numbered `first_row` begins. Raises OSError, csv.Error.
    """
    with open(path, "rb") as file:
        file.seek(start)
        lines = io.TextIOWrapper(file, encoding="utf-8", errors="replace", newline="")
        for number, row in enumerate(csv.reader(lines, delimiter=delimiter), start=first_row):
            if row and len(row) != len(header):
                return f"row {number}: {len(row)} columns, the header has {len(header)}"
            for name, text in zip(header, row):
                if name in columns and not is_finite_float32(text):
                    return f"row {number}, column {name!r}: {text!r:.80} is not a finite number"
    return None


def is_finite_float32(text: str) -> bool:
    """Whether `text` is a decimal number that float32 holds, perhaps rounded."""
    return NUMBER.fullmatch(text.strip()) is not None and abs(float(text)) < FLOAT32_END
