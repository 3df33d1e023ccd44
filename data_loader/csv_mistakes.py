"""Telling where in a CSV file the first mistake stands, when its fast reader has stopped at one."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
FLOAT32_END = 2.0**128 - 2.0**103  # from here on a number rounds to infinity in float32


def first_mistake(
    path: Path, header: list[str], columns: list[str], delimiter: str, start: int, first_row: int, quotes_alone: bool
) -> str | None:
    """Return, with row and column, what is ragged, in one of `columns` no finite float32, or swallows rows; or None.

    Looks row by row from byte `start` on, where the row numbered `first_row` begins; with `quotes_alone`, only for
    values over several lines that swallow rows. Raises OSError.
    """
    taken: list[str] = []
    number = first_row - 1
    with open(path, "rb") as binary, io.TextIOWrapper(binary, "utf-8", errors="replace", newline="") as file:
        binary.seek(start)
        try:
            for number, row in enumerate(csv.reader(kept_lines(file, taken), delimiter=delimiter), start=first_row):
                found = None if quotes_alone else _mistake_in(row, header, columns)
                at = unclosed_quote(row, taken, header, columns, delimiter)
                if at is not None:
                    found = (
                        f", column {_name(header, at)}: a value of {len(taken)} lines; is its closing quote missing?"
                    )
                if found is not None:
                    return f"row {number}{found}"
                taken.clear()
        except csv.Error as error:  # a value over 128 KiB
            whole = [taken[0][: csv.field_size_limit()]]  # up to its first part
            at = len(next(csv.reader(whole, delimiter=delimiter))) - 1
            hint = "; is its closing quote missing?" if len(taken) > 1 else ""
            return f"row {number + 1}, column {_name(header, at)}: {error}{hint}"
    return None


def unclosed_quote(
    row: list[str], lines: list[str], header: list[str], columns: list[str], delimiter: str
) -> int | None:
    """Return which value of `row` goes over several lines for want of a closing quote, or None.

    `lines` is the text of the row. A value may hold line ends (RFC 4180). One is taken for an accident where its quote
    is closed at the end of the file, or in the midst of a value; or where each of its lines would be a good row.
    """
    spanning = [i for i, value in enumerate(row) if "\n" in value or "\r" in value]
    if not spanning:
        return None
    try:
        list(csv.reader(lines, delimiter=delimiter, strict=True))
    except csv.Error:
        return spanning[0]
    for i in spanning:
        text = io.StringIO(row[i].replace('"', '""') + "\n", newline="")
        rows = list(csv.reader(text, delimiter=delimiter))
        rows[0] = [*row[:i], *(rows[0] or [""])]
        rows[-1] = [*(rows[-1] or [""]), *row[i + 1 :]]
        is_good = [_mistake_in(line, header, columns) is None for line in rows]
        if len(rows) > 1 and all(is_good[1:] if row is header else is_good):
            return i
    return None


def kept_lines(lines: Iterable[str], taken: list[str]) -> Iterator[str]:
    """Yield `lines`, and keep in `taken` those that were asked for."""
    for line in lines:
        taken.append(line)
        yield line


def _mistake_in(row: list[str], header: list[str], columns: list[str]) -> str | None:
    if row and len(row) != len(header):
        return f": {len(row)} columns, the header has {len(header)}"
    for name, text in zip(header, row):
        if name in columns and not is_finite_float32(text):
            return f", column {name!r}: {text!r:.80} is not a finite number"
    return None


def _name(header: list[str], index: int) -> str:
    return repr(header[index]) if index < len(header) else str(index + 1)


def is_finite_float32(text: str) -> bool:
    """Whether `text` is a decimal number that float32 holds, perhaps rounded."""
    return NUMBER.fullmatch(text.strip(" \t")) is not None and abs(float(text)) < FLOAT32_END
