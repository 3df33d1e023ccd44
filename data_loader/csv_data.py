"""Regression from the numeric columns of a CSV file."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor

from base import BaseDataLoader, BatchDataset, MappedBatches, NewInputs, TensorBatches
from data_loader.samplers import SamplerArg, drawing
from tables.csv_cache import CsvSample, cached_table
from tables.csv_reader import CsvReader
from tables.kept_table import MIN_BYTES, KeptBatches, find_kept, keep_table
from tables.new_rows import CsvFormat, NewRows
from tables.number_encoder import NumberEncoder
from utils import ConfigError
from utils.annotations import MAY_CHANGE, BatchSize, DataPath, Fold, NumWorkers, PositiveFloat, Share

FLOAT32_BYTES = 4


class CsvDataLoader(BaseDataLoader):
    """Batches of features (N, F) and a target (N, 1), float32, unscaled.

    The file is UTF-8 and has a header; `features` are its columns by name, by default all but `target`; other columns
    may hold anything. `test_split` (a fraction, or a count of rows) is held out for testing, always the same rows.
    The model scales them (see `BaseModel.adapt`).

    A file of 50 MB or more is parsed once: with `cache`, the next run maps the table saved in `cache_dir`, and gets the
    same batches. A table of more than `max_memory` (GiB; estimated) is converted once into a file there, even without
    `cache`, and shuffled by blocks. `max_memory` does not depend on the machine, so a run is the same on
    every machine.
    """

    def __init__(
        self,
        path: DataPath,
        target: str,
        batch_size: BatchSize,
        shuffle: bool = True,
        validation_split: Share = 0.0,
        num_workers: NumWorkers = 0,
        training: bool = True,
        *,
        features: list[str] | None = None,
        test_split: Share = 0.0,
        fold: Fold | None = None,
        delimiter: str = ",",
        max_memory: PositiveFloat = 4.0,
        cache: Annotated[bool, MAY_CHANGE] = True,
        cache_dir: DataPath = "saved/.cache/",
        sampler: SamplerArg | None = None,
    ) -> None:
        """Load the rows of the training split, or with `training=False` of the test split.

        Raises DataError, with row and column, if the file is missing, empty, ragged, lacks a column, or has
        something other than a finite float32 in one; ConfigError if the arguments make no sense.
        """
        _check_delimiter(delimiter)
        reader = CsvReader(Path(path), delimiter)
        self.features = [n for n in dict.fromkeys(reader.header) if n != target] if features is None else features
        if not self.features or len({*self.features, target}) != len(self.features) + 1:
            raise ConfigError(f"data_loader.args.features: {self.features}; name different columns, not the target")
        dataset = _load(reader, [*self.features, target], max_memory * 2**30, Path(cache_dir), training, cache)
        super().__init__(
            *(dataset, batch_size, shuffle, validation_split, num_workers),
            training=training,
            test_split=test_split,
            fold=fold,
            sampler=_drawing(sampler, dataset, reader, target) if training else None,
        )

    def facts(self) -> dict[str, Any]:
        """Return the names of the features in order, for reading new rows."""
        return {"feature_names": self.features}

    @classmethod
    def new_inputs(cls, args: Mapping[str, Any], facts: Mapping[str, Any]) -> NewInputs:
        """Return what reads the features of new rows, by name, from CSV or Parquet files or from memory."""
        delimiter = args.get("delimiter", ",")
        names = args.get("features") or facts.get("feature_names")
        if names is None:  # of a run that an earlier version trained
            names = [name for name in CsvReader(Path(args["path"]), delimiter).header if name != args["target"]]
        return NewRows(NumberEncoder(names), [args["target"]], csv=CsvFormat(delimiter))


def _check_delimiter(delimiter: str) -> None:
    if len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n\0':
        raise ConfigError(f"data_loader.args.delimiter: {delimiter!r}; give one character, no quote or line end")


def _load(
    reader: CsvReader, columns: list[str], max_bytes: float, cache_dir: Path, training: bool, cache: bool
) -> BatchDataset:
    """Return the columns, the last of them as the target, in memory or mapped. Raises DataError."""
    reader.check(columns)
    sample = CsvSample(reader.path, reader.identity, reader.delimiter)
    if sample.num_rows * len(columns) * FLOAT32_BYTES > max_bytes:
        mapped = MappedBatches(*cached_table(reader, columns, sample, cache_dir))
        if not training:
            mapped.fingerprint()  # waits until the file is checked, as a trainer does before training
        return mapped
    key, keeps = sample.key(columns), cache and reader.num_bytes >= MIN_BYTES
    kept = find_kept(cache_dir, key) if keeps else None
    if kept is not None:
        return KeptBatches(kept)
    table = _in_memory(reader, columns)
    batches = TensorBatches(table[:, :-1], table[:, -1:])
    if keeps:
        keep_table(table, batches, cache_dir, key, {"warnings": reader.notes})
    return batches


def _drawing(sampler: SamplerArg | None, dataset: BatchDataset, reader: CsvReader, target: str) -> Any:
    if sampler is None:
        return None
    held = dataset.held_targets()
    targets = _column(reader, target) if held is None else held.flatten()
    return drawing(sampler, targets, partial(_column, reader))


def _column(reader: CsvReader, name: str) -> Tensor:
    """Return the values of a column, (rows,). Raises DataError."""
    reader.check([name])
    return _in_memory(reader, [name]).flatten()


def _in_memory(reader: CsvReader, columns: list[str]) -> Tensor:
    """Return the columns as a tensor (rows, columns), float32."""
    data = bytearray()  # grows in place: a large one moves its pages, so there are never two
    for rows in reader.blocks(columns):
        data += rows.data
    return torch.frombuffer(data, dtype=torch.float32).view(-1, len(columns))
