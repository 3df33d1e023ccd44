"""A batch, and how many samples it was drawn from."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor
from torch.utils.data import DataLoader


class Microbatch(NamedTuple):
    """A batch as the loader gives it, and the number of samples that it was drawn from."""

    batch: Any
    num_samples: int


def read_batch(loader: Any, indices: Tensor) -> Any:
    """Return the batch of the samples `indices`, (N,) int64, of a loader as here, read in this process."""
    return loader.collate_fn(loader.dataset.__getitems__(indices))


def first_samples(loader: DataLoader[Any], num_samples: int, start: int = 0) -> Microbatch:
    """Return a batch of a few samples of a loader as here, or of one that it has split off, by default the first."""
    indices: Tensor = loader.batch_sampler.indices[start : start + num_samples]  # type: ignore[union-attr]
    return Microbatch(read_batch(loader, indices), len(indices))
