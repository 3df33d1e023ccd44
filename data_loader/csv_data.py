"""Regression from the numeric columns of a CSV file."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from base import BaseDataLoader, MappedBatches, TensorBatches, split_indices
from data_loader.csv_cache import CsvSample, cached_table
from data_loader.csv_reader import CsvReader
from data_loader.samplers import SamplerArg, drawing
from utils import ConfigError, DataError
from utils.annotations import BatchSize, DataPath, NumWorkers, PositiveFloat, Share

FLOAT32_BYTES = 4


class CsvDataLoader(BaseDataLoader):
    """Batches of features (N, F) and a target (N, 1), float32, unscaled.

    The file is UTF-8 and has a header; `features` are its columns by name, by default all but `target`; other columns
    may hold anything. `test_split` (a fraction, or a count of rows) is held out for testing, always the same rows.
    The model scales them (see `BaseModel.adapt`).

    A table of more than `max_memory` (GiB; estimated) is converted once into a file in `cache_dir`, which is mapped
    rather than read, and shuffled by blocks. `max_memory` does not depend on the machine, so a run is the same on every
    machine.
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
        delimiter: str = ",",
        max_memory: PositiveFloat = 4.0,
        cache_dir: DataPath = "saved/.cache/",
        sampler: SamplerArg | None = None,
    ) -> None:
        """Load the rows of the training split, or with `training=False` of the test split.

        Raises DataError, with row and column, where the file is missing, empty, ragged, lacks a column, or holds
        something other than a finite float32 where a number belongs; ConfigError where the arguments make no sense.
        """
        _check_delimiter(delimiter)
        reader = CsvReader(Path(path), delimiter)
        self.features = [n for n in dict.fromkeys(reader.header) if n != target] if features is None else features
        if not self.features or len({*self.features, target}) != len(self.features) + 1:
            raise ConfigError(f"data_loader.args.features: {self.features}; name different columns, not the target")
        dataset = _load(reader, [*self.features, target], max_memory * 2**30, Path(cache_dir), training)
        kept, held_out = split_indices(len(dataset), test_split, "data_loader.args.test_split")
        if not training and len(held_out) == 0:
            raise DataError(f"{path}: data_loader.args.test_split is 0: there is no test split to evaluate on")
        super().__init__(
            dataset,
            batch_size,
            shuffle and training,
            validation_split if training else 0,
            num_workers,
            indices=kept if training else held_out,
            sampler=_drawing(sampler, dataset, reader) if training else None,
        )


def _check_delimiter(delimiter: str) -> None:
    if len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n\0':
        raise ConfigError(f"data_loader.args.delimiter: {delimiter!r}; give one character, no quote or line end")


def _load(
    reader: CsvReader, columns: list[str], max_bytes: float, cache_dir: Path, training: bool
) -> TensorBatches | MappedBatches:
    """Return the columns, the last of them as the target, in memory or mapped. Raises DataError."""
    reader.check(columns)
    sample = CsvSample(reader)
    if sample.num_rows * len(columns) * FLOAT32_BYTES > max_bytes:
        mapped = MappedBatches(*cached_table(reader, columns, sample, cache_dir))
        if not training:
            mapped.fingerprint()  # waits until it is checked, as a trainer does before it trains
        return mapped
    table = _in_memory(reader, columns)
    return TensorBatches(table[:, :-1], table[:, -1:])


def _drawing(sampler: SamplerArg | None, dataset: TensorBatches | MappedBatches, reader: CsvReader) -> Any:
    if sampler is None:
        return None
    if isinstance(dataset, MappedBatches):
        targets = torch.from_numpy(dataset.table[:, -1].copy())
    else:
        targets = dataset.targets.flatten()
    return drawing(sampler, targets, partial(_column, reader))


def _column(reader: CsvReader, name: str) -> Tensor:
    """Return the values of a column, (rows,). Raises DataError."""
    reader.check([name])
    return _in_memory(reader, [name]).flatten()


def _in_memory(reader: CsvReader, columns: list[str]) -> Tensor:
    """Return the columns as a tensor (rows, columns), float32."""
    data = bytearray()  # grows in place: a large one by moving its pages, so that there are never two
    for rows in reader.blocks(columns):
        data += rows.data
    return torch.frombuffer(data, dtype=torch.float32).view(-1, len(columns))
