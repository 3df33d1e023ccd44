"""Finds the row and column of the first mistake in a CSV file, once the fast reader has stopped at one."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

BLANKS = " \t"  # around a value; they are no part of it
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
FLOAT32_END = 2.0**128 - 2.0**103  # from here on a number rounds to infinity in float32


class Cells(Protocol):
    """What the cells of the columns that are read are, and how a block of them becomes rows of float32."""

    def arrow_options(self, columns: list[str]) -> dict[str, Any]:
        """Return pyarrow's ConvertOptions, with `types` as a list of the columns' in their order."""

    def rows(self, table: Any) -> tuple[Any, Any]:
        """Return the rows and their bounds (see csv_float32.py). Raises ArrowInvalid where a cell is wrong."""

    def mistake(self, name: str, text: str) -> str | None:
        """Return what is wrong with a cell of the column `name`, or None."""


def first_mistake(
    path: Path,
    header: list[str],
    columns: list[str],
    delimiter: str,
    cells: Cells,
    start: int,
    first_row: int,
    quotes_alone: bool,
) -> str | None:
    """Return the first mistake with its row and column, or None.

    A mistake is a ragged row, a value of `columns` that `cells` refuses, or a quote that swallows rows. Reads row by
    row from byte `start`, where row `first_row` begins. With `quotes_alone`, looks only for quotes that swallow rows.
    Raises OSError.
    """
    taken: list[str] = []
    number = first_row - 1
    with open(path, "rb") as binary, io.TextIOWrapper(binary, "utf-8", errors="replace", newline="") as file:
        binary.seek(start)
        try:
            for number, row in enumerate(csv.reader(kept_lines(file, taken), delimiter=delimiter), start=first_row):
                found = None if quotes_alone else _mistake_in(row, header, columns, cells)
                at = unclosed_quote(row, taken, header, columns, delimiter, cells)
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
    row: list[str], lines: list[str], header: list[str], columns: list[str], delimiter: str, cells: Cells
) -> int | None:
    """Return the index of the value of `row` that spans several lines because its closing quote is missing, or None.

    `lines` is the text of the row. A value may hold line ends (RFC 4180). It counts as a mistake where its quote is
    closed only by the end of the file or in the middle of a value, or where each of its lines would be a good row.
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
        is_good = [_mistake_in(line, header, columns, cells) is None for line in rows]
        if len(rows) > 1 and all(is_good[1:] if row is header else is_good):
            return i
    return None


def kept_lines(lines: Iterable[str], taken: list[str]) -> Iterator[str]:
    """Yield `lines`, and append each to `taken` as it is read."""
    for line in lines:
        taken.append(line)
        yield line


def _mistake_in(row: list[str], header: list[str], columns: list[str], cells: Cells) -> str | None:
    if row and len(row) != len(header):
        return f": {len(row)} columns, the header has {len(header)}"
    for name, text in zip(header, row):
        if name in columns and (mistake := cells.mistake(name, text)):
            return f", column {name!r}: {mistake}"
    return None


def _name(header: list[str], index: int) -> str:
    return repr(header[index]) if index < len(header) else str(index + 1)


def is_finite_float32(text: str) -> bool:
    """Whether `text` is a decimal number that float32 holds, perhaps rounded."""
    return NUMBER.fullmatch(text.strip(" \t")) is not None and abs(float(text)) < FLOAT32_END
