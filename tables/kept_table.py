"""A table that fits in memory, opened from its converted file: the same samples, in the same order, in no time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from base import MappedBatches, TensorBatches
from base.array_cache import checksum_of, find_array, locked, read_notes, write_array
from base.datasets import Indices
from tables.float32 import Rows
from utils import DataError

MIN_BYTES = 50_000_000  # of text: a smaller file is read as fast
CHUNK = 1 << 16  # rows

logger = logging.getLogger("data")


class KeptBatches(TensorBatches):
    """A TensorBatches whose rows stay in a file, which is mapped; a thread compares them with their checksum."""

    def __init__(self, path: Path, num_targets: int = 1, is_class: bool = False) -> None:
        """Map the table, float32, whose last columns are targets. Raises DataError."""
        self._checked = MappedBatches(path, checksum_of(path))
        self._noted: str | None = read_notes(path).get("fingerprint")
        table = torch.from_numpy(np.load(path, mmap_mode="c"))  # "c": a tensor may be written to, the file not
        super().__init__(*inputs_and_targets(table, num_targets, is_class))
        self.split_cache = path.parent

    def __getitems__(self, indices: Indices) -> tuple[Tensor, Tensor]:
        self._checked.raise_if_damaged()
        return super().__getitems__(indices)

    def fingerprint(self) -> str:
        """Return that of the same rows in memory, when the values have been checked. Raises DataError."""
        self._checked.fingerprint()
        return self._noted or TensorBatches(self.inputs, self.targets).fingerprint()


def inputs_and_targets(table: Tensor, num_targets: int, is_class: bool) -> tuple[Tensor, Tensor]:
    """Return views of the inputs (N, F) and targets (N, T) of a table; or, of classes, a copy, (N,) int64."""
    inputs, targets = table[:, :-num_targets], table[:, -num_targets:]
    return inputs, targets[:, 0].long() if is_class else targets


def find_kept(cache_dir: Path, key: str) -> Path | None:
    """Return the file of a table that was kept, and warn of what its reading warned of. Raises DataError."""
    try:
        path = find_array(cache_dir, key)
    except (OSError, ValueError):  # which nothing can be kept in either
        return None
    if path is not None:
        for note in read_notes(path).get("warnings", []):
            logger.warning(note)
    return path


def keep_table(table: Tensor, batches: TensorBatches, cache_dir: Path, key: str, notes: dict[str, Any]) -> None:
    """Write a table, and `notes`, for the next run, in a thread: this run need not wait. A failure is a warning."""
    batches.split_cache = cache_dir
    thread = threading.Thread(target=_keep, args=(table.numpy(), batches, cache_dir, key, notes), name="keep-table")
    thread.start()  # which the end of the program waits for


def _keep(table: Rows, batches: TensorBatches, cache_dir: Path, key: str, notes: dict[str, Any]) -> None:
    blocks: Iterator[Rows] = (np.ascontiguousarray(table[at : at + CHUNK]) for at in range(0, len(table), CHUNK))
    copy = TensorBatches(batches.inputs, batches.targets)  # `batches` may be moved to a device meanwhile
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with locked(cache_dir):
            if find_array(cache_dir, key) is None:
                path = write_array(
                    cache_dir,
                    key,
                    blocks,
                    table.shape[1:],
                    notes=lambda: {**notes, "fingerprint": copy.fingerprint()},
                )
                size = path.stat().st_size / 1e6
                logger.info(f"kept the table for the next run: {path}, {size:,.0f} MB (make clean-cache deletes it)")
    except (OSError, ValueError, DataError) as error:
        reason = getattr(error, "strerror", None) or error
        logger.warning(f"{cache_dir}: the table is not kept for the next run: {reason}")
