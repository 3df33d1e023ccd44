"""Regression from the numeric columns of Parquet files, which may be larger than memory or the disk."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from base import BaseDataLoader, BatchDataset, NewInputs
from base.datasets import Indices
from data_loader.samplers import SamplerArg, drawing
from tables.new_rows import NewRows
from tables.number_encoder import NumberEncoder
from tables.parquet_files import ParquetTable, Shard
from utils import ConfigError, DataError
from utils.annotations import BatchSize, DataPath, Fold, NonNegativeInt, NumWorkers, PositiveFloat, Share

BLOCK_BYTES = 1 << 20  # of small row groups that are decoded together
ORDER_BYTES = 40  # of a sample, while the sampler mixes a window


class ParquetDataLoader(BaseDataLoader):
    """Batches of features (N, F) and a target (N, 1), float32, unscaled.

    `path` is a Parquet file; a directory, whose .parquet files are read in the order of their names; or a URL of
    either that fsspec reads, such as s3://bucket/rows/. `features` and `target` are columns by name, by default the
    last one and all others; they are integers or floats, without nulls. The test split is `test_path`. Validation
    uses `valid_path`, or a `validation_split`, which is spread over all row groups, so that a pass decodes all of them.

    Row groups are shuffled, and then the rows of as many of them as fit in `max_memory` (GiB), a window, are mixed.
    Each process that reads needs that much memory, again for `valid_path`, and some 25 MB for Arrow; the indices of the
    samples take 8 bytes a row, and more while a split is drawn.

    Without workers all cores decode. Every worker, and every process of a run, decodes all row groups of a window,
    since each batch has rows of all of them: one or two hide the time behind a longer step, and more add nothing.
    """

    def __init__(
        self,
        path: DataPath,
        batch_size: BatchSize,
        shuffle: bool = True,
        validation_split: Share = 0.0,
        num_workers: NumWorkers = 0,
        training: bool = True,
        *,
        target: str | None = None,
        features: list[str] | None = None,
        test_path: DataPath | None = None,
        valid_path: DataPath | None = None,
        split_seed: NonNegativeInt = 0,
        fold: Fold | None = None,
        max_memory: PositiveFloat = 0.25,
        sampler: SamplerArg | None = None,
    ) -> None:
        """Read the footers of the training data, or with `training=False` of `test_path`.

        Raises DataError, with the file, where something is missing, damaged, empty or not numeric, or files differ;
        ConfigError where the arguments make no sense. Values are checked as they are decoded: a batch raises
        DataError, with row group, row and column, at one that is no finite float32.
        """
        if not training and test_path is None:
            raise DataError(f"{path}: data_loader.args.test_path is not given: there is no test split to evaluate on")
        dataset = ParquetBatches(ParquetTable(path if training else str(test_path), features, target), max_memory)
        *self.features, self.target = dataset.table.columns
        valid = valid_path if training else None
        valid_set = ParquetBatches(ParquetTable(valid, self.features, self.target), max_memory) if valid else None
        super().__init__(
            *(dataset, batch_size, shuffle, validation_split, num_workers),
            training=training,
            validation_set=valid_set,
            split_seed=split_seed,
            fold=fold,
            sampler=_drawing(sampler, path, dataset) if training else None,
        )
        self.resolved_args |= {"features": self.features, "target": self.target}  # for a test_path of another order

    @classmethod
    def new_inputs(cls, args: Mapping[str, Any], facts: Mapping[str, Any]) -> NewInputs:
        """Return what reads the features of new rows, by name, from Parquet or CSV files or from memory."""
        return NewRows(NumberEncoder(args["features"]), [args["target"]])


class ParquetBatches(BatchDataset):
    """The rows of a ParquetTable: inputs (N, F) and targets (N, 1), float32, decoded on demand.

    A block is a row group, or small ones of a file that follow each other. The decoded blocks of a window are kept in
    one array, of which a batch is one indexing operation; the least recently used block makes room.
    """

    window_blocks: int

    def __init__(self, table: ParquetTable, max_memory: float) -> None:
        """Let a window of blocks, with what mixes it and what Arrow decodes, take `max_memory` GiB at most.

        Raises ConfigError where that is too little for a block.
        """
        self.table, self.max_memory, self.blocks = table, max_memory, _blocks(table)
        self.sizes = np.array([sum(shard.group_rows[group] for group in groups) for shard, groups in self.blocks])
        self.starts = self.sizes.cumsum() - self.sizes  # (B,)
        self.block_size = torch.from_numpy(self.sizes)
        num_columns, max_rows = len(table.columns), int(self.sizes.max())
        spare = 8 * num_columns * max_rows
        per_block = (4 * num_columns + ORDER_BYTES) * max_rows
        self.window_blocks = int((max_memory * 2**30 - spare) // per_block)
        if self.window_blocks < 1:
            needed = math.ceil((spare + per_block) / 2**30 * 1000) / 1000
            raise ConfigError(
                f"data_loader.args.max_memory: {max_memory}; a row group of {max_rows:,} rows, of which {num_columns} "
                f"columns are read, takes {needed} GiB: give that, or write smaller row groups"
            )
        num_slots = min(self.window_blocks, len(self.blocks))
        self._kept = np.empty((num_slots, max_rows, num_columns), np.float32)  # takes memory as it is filled
        self._slots = np.full(len(self.blocks), -1)  # of each block; -1 where it is not kept
        self._used = np.zeros(num_slots, np.int64)  # the round in which each slot was last used
        self._round = 0

    def __reduce__(self) -> tuple[Any, ...]:
        """Let a worker that is not forked begin without decoded blocks."""
        return type(self), (self.table, self.max_memory), {"seed": self.seed, "epoch": self.epoch}

    def __len__(self) -> int:
        return int(self.sizes.sum())

    def __getitems__(self, indices: Indices) -> tuple[Tensor, Tensor]:
        index = np.asarray(indices)
        block = np.searchsorted(self.starts, index, side="right") - 1
        row = index - self.starts[block]  # in its block
        rows = np.empty((len(index), len(self.table.columns)), np.float32)
        left = np.arange(len(index))
        while len(left):  # first from the blocks that are kept, before others take their place
            slots = self._slots[block[left]]
            taken = left[slots >= 0]
            slots = slots[slots >= 0]
            self._round += 1
            self._used[slots] = self._round
            rows[taken] = self._kept[slots, row[taken]]
            left = left[self._slots[block[left]] < 0]
            for number in np.unique(block[left])[: len(self._kept)].tolist():
                self._decode(number)
        table = torch.from_numpy(rows)
        return table[:, :-1].contiguous(), table[:, -1:].contiguous()

    def fingerprint(self) -> str:
        """Return a checksum of all footers."""
        return f"{super().fingerprint()}:{self.table.fingerprint()}"

    def _decode(self, number: int) -> None:
        slot = int(self._used.argmin())
        self._slots[self._slots == slot] = -1
        out = self._kept[slot][: self.sizes[number]]
        self.table.read(*self.blocks[number], out, use_threads=get_worker_info() is None)
        self._slots[number], self._used[slot] = slot, self._round + 1


def _drawing(sampler: SamplerArg | None, path: str, dataset: ParquetBatches) -> Any:
    if sampler is None:
        return None
    *features, target = dataset.table.columns
    values = partial(_values, path, features, target, dataset.max_memory)
    return drawing(sampler, values(target), values)


def _values(path: str, features: list[str], target: str, max_memory: float, name: str) -> Tensor:
    """Return the values of a column, (rows,) float32; a sampler that weighs all rows has them in memory."""
    part = 1 if name == target else 0
    batches = ParquetBatches(ParquetTable(path, features if part else [name], target), max_memory)
    return torch.cat([batches.__getitems__(rows)[part] for rows in torch.arange(len(batches)).split(1 << 16)]).flatten()


def _blocks(table: ParquetTable) -> list[tuple[Shard, range]]:
    """Return the row groups of each block."""
    max_rows = BLOCK_BYTES // (4 * len(table.columns))
    blocks = []
    for shard in table.shards:
        start, size = 0, 0
        for group, num_rows in enumerate(shard.group_rows):
            if size and size + num_rows > max_rows:
                blocks.append((shard, range(start, group)))
                start, size = group, 0
            size += num_rows
        if size:
            blocks.append((shard, range(start, len(shard.group_rows))))
    return blocks
