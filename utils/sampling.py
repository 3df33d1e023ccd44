"""Which samples come when: the order of an epoch is a function of (seed, epoch), and can start anywhere in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import repeat
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Sampler

from utils.errors import ConfigError
from utils.rng import mix_seed

SPLIT_SEED = 0  # the split stays the same when the seed of a run changes, so that runs compare


class EpochBatchSampler(Sampler[list[int]]):
    """Batches of dataset indices, the last one possibly smaller.

    The order depends on (seed, epoch) alone, so a run can go on in the middle of an epoch: `first_batch` is where
    iteration starts, and nothing before it is drawn or skipped one by one.
    """

    def __init__(self, indices: Tensor, batch_size: int, shuffle: bool) -> None:
        self.indices = indices  # (N,) int64
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = 0
        self.epoch = 0
        self.first_batch = 0

    def __len__(self) -> int:
        """Batches in a whole epoch, wherever iteration starts."""
        return -(-len(self.indices) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = self.indices
        if self.shuffle:
            generator = torch.Generator().manual_seed(mix_seed(self.seed, self.epoch))
            order = order[torch.randperm(len(order), generator=generator)]
        for start in range(self.first_batch * self.batch_size, len(order), self.batch_size):
            yield order[start : start + self.batch_size].tolist()


def split_indices(num_samples: int, held_out: float | int, where: str) -> tuple[Tensor, Tensor]:
    """Return (kept, held out) indices, each (n,) int64, ascending, the same for every run.

    `held_out` is a fraction in [0, 1) or a number of samples; `where` is the config path for the error.
    Raises ConfigError where nothing would be left to keep, or where a fraction holds out nothing.
    """
    size = int(num_samples * held_out) if isinstance(held_out, float) else held_out
    is_empty_fraction = held_out > 0 and size == 0
    if not 0 <= size < num_samples or is_empty_fraction:
        raise ConfigError(f"{where}: {held_out} of {num_samples} samples; give a fraction in [0, 1) or a smaller count")
    order = torch.randperm(num_samples, generator=torch.Generator().manual_seed(SPLIT_SEED))
    return order[size:].sort().values, order[:size].sort().values


def inf_loop(data_loader: Iterable[Any]) -> Iterator[Any]:
    """Yield the batches of `data_loader` over and over."""
    for loader in repeat(data_loader):
        yield from loader
