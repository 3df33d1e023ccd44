"""Proposes the kinds of a table's columns from its first rows, for `columns: "auto"`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from tables.coders import BLANKS, FALSE, TRUE, Coder
from tables.columns import Column

MAX_LABELS = 1000
MAX_SHARE_OF_LABELS = 0.5  # different texts among the rows; more are names or notes, and no categories
SURE_LABELS = 20  # so few are categories in a table of any size


class Proposal(NamedTuple):
    """What is proposed for a column, and why."""

    name: str
    options: dict[str, Any]
    reason: str


def propose(table: pa.Table, targets: Sequence[str], missing_values: Iterable[str]) -> list[Proposal]:
    """Return a proposal for each column of the sample.

    A column with gaps gets the policy "median", or "most_frequent", and an indicator; a target with them none.
    """
    missing_values = [value.strip(BLANKS) for value in missing_values]
    return [
        _propose(name, table.column(i), name in targets, missing_values) for i, name in enumerate(table.schema.names)
    ]


def _propose(name: str, cells: pa.ChunkedArray, is_target: bool, missing_values: Iterable[str]) -> Proposal:
    kind, reason, num_missing = _kind(cells, missing_values)
    if is_target and kind in ("category", "bool"):
        kind = "class"
    options: dict[str, Any] = {"kind": kind}
    if num_missing and kind in ("number", "date", "category", "bool") and not is_target:
        policy = "median" if kind in ("number", "date") else "most_frequent"
        options |= {"missing": policy, "indicator": True}
        reason += f", {num_missing:,} missing"
    return Proposal(name, options, reason)


def _kind(cells: pa.ChunkedArray, missing_values: Iterable[str]) -> tuple[str, str, int]:
    """Return the kind, the reason, and the number of missing values."""
    number = Coder(Column("", "number"), missing_values)(cells) if not _is_odd(cells.type) else None
    if number is None:
        return "ignore", f"{cells.type} has no kind", 0
    num_missing = int(number.is_missing.sum())
    num_values = len(cells) - num_missing
    if num_values == 0:
        return "ignore", "all gaps", num_missing
    if not number.is_wrong.any() and not types.is_boolean(cells.type) and not types.is_temporal(cells.type):
        is_index = num_values > 2 and num_missing == 0 and bool((np.diff(number.values[:, 0]) == 1).all())
        return ("ignore", "numbers the rows", 0) if is_index else ("number", _examples(cells), num_missing)
    texts = pc.utf8_trim(pc.unique(pc.cast(cells, pa.string())), BLANKS)
    date = Coder(Column("", "date"), missing_values)(cells)
    if not date.is_wrong.any():
        return "date", _examples(cells), num_missing
    labels = {text for text in texts.to_pylist() if text is not None} - {*missing_values}
    if {label.lower() for label in labels} <= TRUE | FALSE:
        return "bool", _examples(cells), num_missing
    if len(labels) <= SURE_LABELS or len(labels) <= min(MAX_LABELS, MAX_SHARE_OF_LABELS * num_values):
        return "category", f"{len(labels)} labels: {_examples(cells)}", num_missing
    return "ignore", f"text: {len(labels):,} different in {num_values:,} rows: {_examples(cells)}", num_missing


def _is_odd(kind: pa.DataType) -> bool:
    """Whether cells of this type, such as lists, are no text."""
    return types.is_nested(kind) or types.is_binary(kind) or types.is_large_binary(kind) or types.is_null(kind)


def _examples(cells: pa.ChunkedArray) -> str:
    texts = [str(value) for value in pc.unique(cells.slice(0, 1000)).to_pylist()[:3]]
    return ", ".join(text if len(text) <= 20 else f"{text[:19]}…" for text in texts)


def as_table(proposals: Sequence[Proposal]) -> str:
    """Return the proposals as text for people, a line each."""
    rows = [("column", "kind", "gaps", "because of")]
    rows += [(p.name, p.options["kind"], p.options.get("missing", ""), p.reason) for p in proposals]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return "\n".join("  ".join([*(text.ljust(width) for text, width in zip(row, widths)), row[3]]) for row in rows)
