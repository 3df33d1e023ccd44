"""A table in a file that is mapped rather than read, and compared with its checksum in the background."""

from __future__ import annotations

import threading
import zlib
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from base.datasets import BatchDataset, Indices
from utils import DataError

BLOCK_BYTES = 256 << 10  # of a table on disk that are read together
CHECK_BYTES = 1 << 20


class MappedBatches(BatchDataset):
    """A table of float32 (N, F + T) in an .npy file that stays on disk; inputs (N, F) and targets (N, T), by default 1.

    Where these are classes, they are (N,) int64.

    A batch is read when it is asked for, through a memory map, whose pages the system keeps as it has memory to spare.
    A thread compares the values with their checksum; where they differ, `fingerprint` and batches raise DataError.
    """

    DTYPE: ClassVar[np.dtype[Any]] = np.dtype(np.float32)
    NUM_DIMS: ClassVar[int] = 2

    def __init__(
        self, path: Path, checksum: str, is_checked: bool = False, num_targets: int = 1, is_class: bool = False
    ) -> None:
        """`checksum`, the CRC-32 of the values as 8 hex digits, stands for them in the `fingerprint`.

        Raises DataError.
        """
        self.path = path
        self.checksum = checksum
        self.num_targets, self.is_class = num_targets, is_class
        self.split_cache = path.parent
        self._damage: str | None = None
        try:
            self.table = np.load(path, mmap_mode="r")
            if (self.table.dtype, self.table.ndim) != (self.DTYPE, self.NUM_DIMS):
                raise ValueError(f"it is not an array of {self.DTYPE} with {self.NUM_DIMS} dimensions")
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: cannot be read: {error}; delete it, and it is made again") from None
        self._check = threading.Thread(target=self._compare, daemon=True)
        if not is_checked:
            self._check.start()
        self.block_size = max(1, BLOCK_BYTES // (self.table.itemsize * self.table.shape[1]))

    def __reduce__(self) -> tuple[Any, ...]:
        """Let a worker that is not forked map the file itself, rather than get a copy of the table."""
        args = (self.path, self.checksum, True, self.num_targets, self.is_class)
        return type(self), args, {"seed": self.seed, "epoch": self.epoch}

    def __len__(self) -> int:
        return len(self.table)

    def __getitems__(self, indices: Indices) -> tuple[Tensor, Tensor]:
        rows = self._rows(indices)
        inputs, targets = rows[:, : -self.num_targets].contiguous(), rows[:, -self.num_targets :].contiguous()
        return inputs, targets[:, 0].long() if self.is_class else targets

    def _rows(self, indices: Indices) -> Tensor:
        """Return the rows of the array. Raises DataError."""
        self.raise_if_damaged()
        return torch.from_numpy(self.table[np.asarray(indices)])

    def fingerprint(self) -> str:
        """Return the checksum that was given, when the values have been compared with it. Raises DataError."""
        if self._check.is_alive():
            self._check.join()
        self.raise_if_damaged()
        return f"{super().fingerprint()}:{self.checksum}"

    def raise_if_damaged(self) -> None:
        """Raise DataError where the values were found to differ from their checksum so far."""
        if self._damage:
            raise DataError(self._damage)

    def _compare(self) -> None:
        checksum = 0
        try:
            with open(self.path, "rb") as file:  # not the map, whose pages would count as memory of the process
                file.seek(self.table.offset)
                while chunk := file.read(CHECK_BYTES):
                    checksum = zlib.crc32(chunk, checksum)
        except OSError as error:
            self._damage = f"{self.path}: cannot be read: {error.strerror}"
        if f"{checksum:08x}" != self.checksum:
            self._damage = self._damage or f"{self.path}: its values are damaged; delete it, and it is made again"
