"""Hugging Face `datasets` as a source: columns of a dataset on this machine. An extra: pip install datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from base import BaseDataLoader, BatchDataset
from base.datasets import Indices
from data_loader.collate import Collate, stack
from data_loader.samplers import SamplerArg, drawing
from utils import ConfigError, DataError, nearest
from utils.annotations import BatchSize, DataPath, NumWorkers, Share

BUILDERS = {".parquet": "parquet", ".csv": "csv", ".arrow": "arrow", ".json": "json", ".jsonl": "json"}
WHERE = "data_loader.args"


class HfDataLoader(BaseDataLoader):
    """Batches of inputs (N, F) float32, one for each of `columns`, and a target: (N,) int64, or (N, 1) float32.

    A single column of lists gives inputs (T_i, ...) of their own type, for `"collate": "pad"`. `path` is a directory
    that `save_to_disk` wrote, and `split` the part of it, or a Parquet, CSV, JSON or Arrow file. Nothing is
    downloaded.
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
        columns: list[str],
        target: str,
        split: str = "train",
        test_split: Share = 0.0,
        cache_dir: DataPath = "saved/.cache/",
        collate: Collate = stack,
        sampler: SamplerArg | None = None,
    ) -> None:
        """Read the training rows, or with `training=False` the `test_split`: a fraction, or a count of rows.

        Raises DataError where the data or a column is missing; ConfigError where `datasets` is not installed.
        """
        rows = _load(path, split, cache_dir)
        for name in (*columns, target):
            if name not in rows.column_names:
                raise DataError(f"{path}: has no column {name!r}; {nearest(name, rows.column_names)}")
        dataset = HfBatches(rows, columns, target)
        super().__init__(
            *(dataset, batch_size, shuffle, validation_split, num_workers, collate),
            training=training,
            test_split=test_split,
            sampler=drawing(sampler, dataset.column(target), dataset.column) if training and sampler else None,
        )


class HfBatches(BatchDataset):
    """Samples (inputs, target) of a `datasets.Dataset`, in lists for `collate`."""

    def __init__(self, rows: Any, columns: list[str], target: str) -> None:
        self.rows, self.columns, self.target = rows.with_format("numpy"), columns, target

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, indices: Indices) -> list[tuple[Tensor, Tensor]]:
        batch = self.rows[torch.as_tensor(indices).tolist()]  # column -> array (N,), or of arrays
        columns, targets = [batch[name] for name in self.columns], _targets(batch[self.target])
        if len(columns) == 1 and np.ndim(columns[0][0]) > 0:
            return [(torch.as_tensor(np.array(value)), target) for value, target in zip(columns[0], targets)]
        inputs = torch.from_numpy(np.stack(columns, axis=1).astype(np.float32))
        return list(zip(inputs, targets))

    def column(self, name: str) -> Tensor:
        """Return the values of a column, (rows,). Raises DataError where there is none."""
        if name not in self.rows.column_names:
            raise DataError(f"{WHERE}: the data has no column {name!r}; {nearest(name, self.rows.column_names)}")
        return torch.from_numpy(np.asarray(self.rows[name][:]))

    def fingerprint(self) -> str:
        """Return a checksum of the first and last rows, with the names and types of the columns."""
        ends = [self.rows[0], self.rows[len(self.rows) - 1]]
        return f"{super().fingerprint()}:{self.rows.features}:{ends}"


def _targets(values: np.ndarray) -> Tensor:
    targets = torch.from_numpy(np.asarray(values))
    return targets.float().unsqueeze(1) if targets.is_floating_point() else targets.long()


def _load(path: str, split: str, cache_dir: str) -> Any:
    """Return a `datasets.Dataset`. Raises DataError, ConfigError."""
    try:
        import datasets
    except ImportError:
        raise ConfigError("data_loader.type: HfDataLoader needs a library: pip install datasets") from None
    try:
        if Path(path).is_dir():
            loaded = datasets.load_from_disk(path)
        else:
            builder = BUILDERS.get(Path(path).suffix)
            if builder is None:
                raise DataError(
                    f"{path}: give a directory of save_to_disk, or a file that ends with {', '.join(BUILDERS)}"
                )
            if not Path(path).is_file():
                raise DataError(f"{path}: cannot be read: No such file or directory")
            loaded = datasets.load_dataset(builder, data_files=path, split="train", cache_dir=cache_dir)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from None
    if isinstance(loaded, datasets.DatasetDict):
        if split not in loaded:
            raise ConfigError(f"{WHERE}.split: {path} has no {split!r}; {nearest(split, loaded)}")
        return loaded[split]
    return loaded
