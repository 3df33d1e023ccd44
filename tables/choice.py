"""Which columns of a table are read, and of which kind each is: as a config says, or as its first rows propose."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tables.auto import as_table, propose
from tables.columns import WHERE, Column, make_column
from tables.source import TableSource
from utils import ConfigError, nearest

logger = logging.getLogger("data")


@dataclass(frozen=True)
class Chosen:
    """The columns that are read. A split column is read beside the others, as it is needed there (`exact_parts`)."""

    features: list[Column]
    targets: list[Column]
    ignored: list[str]
    group: Column | None = None
    time: Column | None = None

    @property
    def is_class(self) -> bool:
        """Whether the target is a class."""
        return self.targets[0].kind == "class"

    def resolved(self) -> dict[str, Any]:
        """Return `columns` as a config has them."""
        targets = [column.fitted(missing="error") for column in self.targets]  # `missing_target` is the loader's
        kept = {column.name: column.asked() for column in [*self.features, *targets]}
        return kept | {name: {"kind": "ignore"} for name in self.ignored}


def choose(
    source: TableSource,
    target: str | Sequence[str],
    columns: Mapping[str, Any] | str,
    missing: str,
    missing_target: str,
    missing_values: list[str],
    split_by: str | None,
    split_time: str | None,
) -> Chosen:
    """Return the columns, features in the order of `columns`. Raises ConfigError, DataError."""
    targets = [target] if isinstance(target, str) else target
    if split_by is not None and split_time is not None:
        raise ConfigError("data_loader.args: give one of split_by and split_time")
    if not targets or len(set(targets)) < len(targets):
        raise ConfigError(f"data_loader.args.target: {targets}; name different columns")
    if not isinstance(columns, Mapping):
        source.check([*targets])
        proposals = propose(source.sample(), targets, missing_values)
        logger.info(f"{source.path}: columns are read as proposed (data_loader.args.columns):\n{as_table(proposals)}")
        columns = {proposal.name: proposal.options for proposal in proposals}
        if split_by is not None and split_by not in targets:  # an id of persons, say, is no feature
            columns |= {split_by: {"kind": "ignore"}}
    made = [make_column(name, options, missing) for name, options in columns.items()]
    by_name = {column.name: column for column in made}
    chosen_targets = [by_name.get(name, Column(name, "number")) for name in targets]
    chosen_targets = [column.fitted(missing=missing_target, indicator=False) for column in chosen_targets]
    features = [column for column in made if column.kind != "ignore" and column.name not in targets]
    _check(features, chosen_targets)
    time = None
    if split_time is not None:
        kind = by_name[split_time].kind if split_time in by_name else "date"
        asked = by_name.get(split_time, Column(split_time, kind))
        kind = "date" if kind == "ignore" else kind
        if kind not in ("date", "number"):
            raise ConfigError(f"data_loader.args.split_time: {split_time!r} is a {kind}; a date or number has an order")
        time = Column(split_time, kind, format=asked.format, parts=["days", "hour", "minute", "second"])
    group = None if split_by is None else Column(split_by, "category")
    ignored = [column.name for column in made if column.kind == "ignore"]
    return Chosen(features, chosen_targets, ignored, group, time)


def _check(features: list[Column], targets: list[Column]) -> None:
    for column in features:
        if column.kind == "class":
            allowed = "number, category, bool, date, ignore"
            raise ConfigError(f"{WHERE}.{column.name}.kind: class is for a target; allowed: {allowed}")
    if not features:
        raise ConfigError(f"{WHERE}: no column but the target is read")
    for column in targets:
        if column.kind not in ("number", "class"):
            hint = "give class" if column.kind in ("category", "bool") else nearest(column.kind, ["number", "class"])
            raise ConfigError(f"{WHERE}.{column.name}.kind: {column.kind!r}; a target is a number or a class: {hint}")
    if len(targets) > 1 and any(column.kind == "class" for column in targets):
        raise ConfigError(f"data_loader.args.target: {[c.name for c in targets]}; of several, all are numbers")
