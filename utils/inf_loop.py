"""Endless passes over a loader, for epochs that are a number of iterations rather than the data once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any


class inf_loop:  # the published template's name, where it was a generator function
    """Yields the batches of `data_loader` over and over, and can resume where a checkpoint was made."""

    def __init__(self, data_loader: Iterable[Any]) -> None:
        """A loader that has `set_epoch(seed, epoch, first_batch)` is given each pass; others start where they like."""
        self.data_loader = data_loader
        self.before_batch: Callable[[], None] | None = None
        self.seed = 0
        self.num_passes = 0  # the one under way included
        self.num_batches = 0  # of the pass under way that were drawn
        self._batches: Iterator[Any] = iter(())

    def __iter__(self) -> inf_loop:
        return self

    def __next__(self) -> Any:
        if self.before_batch is not None:
            self.before_batch()
        batch = next(self._batches, self)
        if batch is self:
            self._start(self.num_passes + 1, 0)
            batch = next(self._batches)
        self.num_batches += 1
        return batch

    def state_dict(self) -> dict[str, int]:
        """Return where in which pass it is."""
        return {"num_passes": self.num_passes, "num_batches": self.num_batches}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue where `state_dict` was called; with a loader that cannot start there, at the start of that pass."""
        if state["num_passes"] > 0:
            self._start(int(state["num_passes"]), int(state["num_batches"]))

    def _start(self, number: int, first_batch: int) -> None:
        set_epoch = getattr(self.data_loader, "set_epoch", None)
        if set_epoch is not None:
            set_epoch(self.seed, number, first_batch)
        self.num_passes, self.num_batches = number, first_batch
        self._batches = iter(self.data_loader)
