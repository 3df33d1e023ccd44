"""Regression and classification from tables with columns of any kind, in CSV or Parquet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from base import BaseDataLoader, NewInputs
from tables.choice import choose
from tables.columns import ColumnOptions, Kind, Missing
from tables.csv_source import CsvSource
from tables.new_rows import CsvFormat, NewRows
from tables.open import open_table
from tables.parquet_source import ParquetSource
from tables.request import TableRequest
from tables.row_encoder import RowEncoder
from tables.source import TableSource
from utils import DataError
from utils.annotations import MAY_CHANGE, BatchSize, DataPath, Fold, NumWorkers, PositiveFloat, Share

PARQUET = (".parquet", "/")


class TableDataLoader(BaseDataLoader):
    """Batches of rows (N, F) float32, encoded by RowEncoder, and targets: (N, T) float32, or of a class (N,) int64.

    `path` is a CSV file, a Parquet file, or a directory (its name ends in /) or URL of Parquet files. `columns` gives
    the kind of each column to read (see ColumnOptions): number, category, bool, date, or ignore; for a `target`, number
    or class, whose labels are read as text. With "auto", kinds are proposed from the first rows, and printed; the run's
    config records the choice.

    Texts in `missing_values` mean a missing value. It is an error, or the model fills it by the policy `missing` of the
    column or, by default, of the loader. A missing target is an error too, or with `missing_target` "drop" its row is
    left out. For a file without a header line, `header` is false, and `names` lists all columns.

    `validation_split` and `test_split` are rows drawn at random, always the same; or whole groups of rows with the
    same value in the column `split_by`; or the newest rows by the column `split_time`, a number or a date. All that
    is fitted (vocabularies, means, fill values) comes from the training split alone.

    A file of 50 MB and more is parsed once, as by CsvDataLoader, whose `max_memory`, `cache` and `cache_dir` these are.
    """

    def __init__(
        self,
        path: DataPath,
        target: str | list[str],
        batch_size: BatchSize,
        shuffle: bool = True,
        validation_split: Share = 0.0,
        num_workers: NumWorkers = 0,
        training: bool = True,
        *,
        columns: dict[str, Kind | ColumnOptions] | Literal["auto"] = "auto",
        missing: Missing = "error",
        missing_target: Literal["error", "drop"] = "error",
        missing_values: list[str] = [""],  # noqa: B006  # is not changed
        test_split: Share = 0.0,
        split_by: str | None = None,
        split_time: str | None = None,
        fold: Fold | None = None,
        header: bool = True,
        names: list[str] | None = None,
        delimiter: str = ",",
        encoding: str = "utf-8",
        max_memory: PositiveFloat = 4.0,
        cache: Annotated[bool, MAY_CHANGE] = True,
        cache_dir: DataPath = "saved/.cache/",
        table: dict[str, Any] | None = None,
    ) -> None:
        """Load the rows of the training split, or with `training=False` of the test split.

        `table` holds the facts of a trained model; then nothing is fitted. Raises DataError, with row and column, where
        the file is missing, ragged, not of its encoding, or a cell is not of its kind; ConfigError for the arguments.
        """
        _check_split(path, training, test_split)
        with _opened(path, delimiter, encoding, names, header, cache_dir, columns == "auto") as source:
            chosen = choose(source, target, columns, missing, missing_target, missing_values, split_by, split_time)
            request = TableRequest(source, chosen, missing_values, test_split, validation_split, table, fold)
            self.table = rows = open_table(request, max_memory * 2**30, Path(cache_dir), cache)
        how = {"num_workers": num_workers, "training": training, **rows.split(training)}
        super().__init__(rows.dataset, batch_size, shuffle, **how)
        self.num_classes, self.resolved_args["columns"] = len(rows.class_names) or None, chosen.resolved()

    def facts(self) -> dict[str, Any]:
        """Return `table`, which a RowEncoder and a TableEncoder are built from; of classes, their number and names."""
        facts: dict[str, Any] = {"table": self.table.as_fact()}
        if self.table.class_names:
            facts |= {"num_classes": len(self.table.class_names), "class_names": self.table.class_names}
        return facts

    @classmethod
    def new_inputs(cls, args: Mapping[str, Any], facts: Mapping[str, Any]) -> NewInputs:
        """Return what encodes new rows as those of the training split, from CSV or Parquet files or from memory."""
        temp_dir = Path(args.get("cache_dir", "saved/.cache/"))
        how = CsvFormat(args.get("delimiter", ","), args.get("encoding", "utf-8"), args.get("names"), temp_dir)
        targets = [target["name"] for target in facts["table"]["targets"]]
        return NewRows(RowEncoder.from_facts(facts["table"]), targets, facts.get("class_names"), how)


def _check_split(path: str, training: bool, test_split: float | int) -> None:
    if not training and not test_split:
        raise DataError(f"{path}: data_loader.args.test_split is 0: there is no test split to evaluate on")


@contextmanager
def _opened(
    path: str, delimiter: str, encoding: str, names: list[str] | None, header: bool, temp_dir: str, is_auto: bool
) -> Iterator[TableSource]:
    """Yield the rows of `path`; an error in a cell mentions a kind that was proposed, not configured."""
    is_parquet = path.endswith(PARQUET)
    source = ParquetSource(path) if is_parquet else CsvSource(path, delimiter, encoding, header, names, Path(temp_dir))
    try:
        yield source
    except DataError as error:
        was_proposed = is_auto and ", column " in str(error)
        hint = "; its kind was proposed from the first rows (`columns`: auto)" if was_proposed else ""
        raise DataError(f"{error}{hint}") from None
    finally:
        source.close()
