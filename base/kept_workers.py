"""Workers that stay alive between epochs: which epoch it is travels to them with the indices of each batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from base.datasets import Indices, WrappedBatches
from base.sampling import EpochIndices


class KeptWorkers(WrappedBatches):
    """Another dataset, as workers read it that were started in an earlier epoch.

    They cannot learn of an epoch by `set_epoch`, which is called in the process that started them.
    """

    def __getitems__(self, indices: Indices) -> Any:
        if isinstance(indices, EpochIndices) and (indices.seed, indices.epoch) != (self.seed, self.epoch):
            self.set_epoch(indices.seed, indices.epoch)
        return self.dataset.__getitems__(indices)


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
