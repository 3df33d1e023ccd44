"""The columns of a table: what a config says of each, and what the training split says, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

from typing_extensions import NotRequired, TypedDict

from utils import ConfigError, nearest
from utils.annotations import PositiveInt

Kind = Literal["number", "category", "class", "bool", "date", "ignore"]
Missing = Literal["error", "mean", "median", "most_frequent", "constant"]
Part = Literal["year", "month", "day", "weekday", "days", "hour", "minute", "second"]
WHERE = "data_loader.args.columns"
NO_MEAN = ("error", "most_frequent", "constant")
POLICIES: dict[str, tuple[str, ...]] = {"category": NO_MEAN, "bool": NO_MEAN, "class": ("error",), "ignore": ("error",)}


class ColumnOptions(TypedDict):
    """What a config may say of a column; `kind` alone may be given as a string."""

    kind: Kind
    missing: NotRequired[Missing]
    constant: NotRequired[float | str]
    """What a gap is filled with where `missing` is "constant": a number, a label, true or a date."""
    indicator: NotRequired[bool]
    """Whether the model also gets a 1 where the value was missing."""
    min_count: NotRequired[PositiveInt]
    """A category that the training split has less often counts as "other", as do those that it does not have."""
    encoding: NotRequired[Literal["one_hot", "embedding"]]
    dim: NotRequired[PositiveInt]
    """Of the embedding; by default it grows with the number of categories."""
    format: NotRequired[str]
    """Of a date, as strptime has it ("%d.%m.%Y"); by default ISO 8601."""
    parts: NotRequired[list[Part]]
    """What a date becomes; by default year, month, day, weekday (Monday is 0) and days since 1970-01-01."""


@dataclass(frozen=True)
class Column:
    """A column as it is encoded: the options of a config, and from `labels` on what was fitted to the training split.

    It takes `width` columns of the matrix. A category is there as its code: i + 1 for `labels[i]`, 0 for all others. A
    class is i. What is missing is NaN. `mean`, `std` and `fill` have a value for each column of the matrix; `fill` is a
    code where the kind is category.
    """

    name: str
    kind: str
    missing: str = "error"
    constant: float | str | None = None
    indicator: bool = False
    min_count: int = 1
    encoding: str = "one_hot"
    dim: int | None = None
    format: str | None = None
    parts: list[str] = field(default_factory=lambda: ["year", "month", "day", "weekday", "days"])
    labels: list[str] = field(default_factory=list)
    mean: list[float] = field(default_factory=list)
    std: list[float] = field(default_factory=list)
    fill: list[float] = field(default_factory=list)
    log_mean: float | None = None
    log_std: float | None = None

    @property
    def width(self) -> int:
        """The number of columns of the matrix that this one takes."""
        return len(self.parts) if self.kind == "date" else 1

    @property
    def has_labels(self) -> bool:
        """Whether its values are labels, and their codes numbers without an order."""
        return self.kind in ("category", "class")

    def fitted(self, **values: Any) -> Column:
        """Return a copy with what the training split says."""
        return replace(self, **values)

    def as_fact(self) -> dict[str, Any]:
        """Return plain data, which a checkpoint holds."""
        return asdict(self)

    def asked(self) -> dict[str, Any]:
        """Return the options that are not the default, as a config has them."""
        plain = Column(self.name, self.kind)
        names = ColumnOptions.__annotations__.keys() - {"kind"}
        found = {key: value for key, value in asdict(self).items() if key in names and value != getattr(plain, key)}
        return {"kind": self.kind, **found}


def make_column(name: str, options: str | Mapping[str, Any], missing: str = "error") -> Column:
    """Return the column `name`; `missing` is the policy where it gives none. Raises ConfigError."""
    given: dict[str, Any] = {"kind": options} if isinstance(options, str) else dict(options)
    where = f"{WHERE}.{name}"
    for key in given.keys() - ColumnOptions.__annotations__.keys():
        raise ConfigError(f"{where}.{key}: unknown key; {nearest(key, ColumnOptions.__annotations__)}")
    for key, allowed in {"kind": Kind, "missing": Missing}.items():
        if given.get(key, get_args(allowed)[0]) not in get_args(allowed):
            raise ConfigError(f"{where}.{key}: {given[key]!r}; {nearest(str(given[key]), get_args(allowed))}")
    if "kind" not in given:
        raise ConfigError(f"{where}.kind: missing; allowed: {', '.join(get_args(Kind))}")
    kind = given["kind"]
    policies = POLICIES.get(kind, get_args(Missing))
    if missing not in policies:  # of all columns, and this one has no mean
        missing = policies[min(1, len(policies) - 1)]
    column = Column(name, **{"missing": missing, **given})
    if column.missing not in policies:
        raise ConfigError(f"{where}.missing: {column.missing!r}; a {kind} allows: {', '.join(policies)}")
    if column.missing == "constant" and column.constant is None:
        raise ConfigError(f"{where}.constant: missing; what is a gap filled with?")
    if kind == "date" and not (column.parts and set(column.parts) <= {*get_args(Part)}):
        raise ConfigError(f"{where}.parts: {column.parts}; allowed: {', '.join(get_args(Part))}")
    return column
