"""Workers that stay alive between epochs: which epoch it is travels to them with the indices of each batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from base.datasets import BatchDataset, Indices
from base.sampling import EpochIndices


class KeptWorkers(BatchDataset):
    """Another dataset, as workers read it that were started in an earlier epoch.

    They cannot learn of an epoch by `set_epoch`, which is called in the process that started them.
    """

    def __init__(self, dataset: BatchDataset) -> None:
        self.dataset = dataset
        self.block_size, self.window_blocks = dataset.block_size, dataset.window_blocks

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, indices: Indices) -> Any:
        if isinstance(indices, EpochIndices) and (indices.seed, indices.epoch) != (self.seed, self.epoch):
            self.set_epoch(indices.seed, indices.epoch)
        return self.dataset.__getitems__(indices)

    def set_epoch(self, seed: int, epoch: int) -> None:
        """Tell the dataset too."""
        super().set_epoch(seed, epoch)
        self.dataset.set_epoch(seed, epoch)

    def fingerprint(self) -> str:
        """Return that of the dataset."""
        return self.dataset.fingerprint()

    def to(self, device: torch.device) -> None:
        """Keep the dataset on `device`."""
        self.dataset.to(device)

    @property
    def device(self) -> torch.device:
        """Where the batches are."""
        return self.dataset.device

    def num_bytes(self) -> int | None:
        """Return how much memory the dataset takes."""
        return self.dataset.num_bytes()

    def held_targets(self) -> Tensor | None:
        """Return those of the dataset."""
        return self.dataset.held_targets()


@contextmanager
def workers_ended(loader: Any) -> Iterator[None]:
    """Afterwards end the workers that `loader`, and the one that it has split off, have kept.

    The garbage collector would do so at any time, in any thread or in a worker that is forked meanwhile, and hang.
    """
    try:
        yield
    finally:
        owners: list[Any] = [loader, getattr(loader, "_valid_loader", None)]
        for owner in owners:
            iterator = getattr(owner, "_iterator", None)
            if iterator is not None:
                iterator._shutdown_workers()
                owner._iterator = None
