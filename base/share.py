"""Which part of the batches a process computes, where several share an epoch: each sample is in one part exactly.

A process that has no sample where others have one computes a batch of theirs too, which is counted as 0 samples: all of
them must make the same number of steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from torch import Tensor


class Share:
    """All batches, as one process computes them."""

    num_parts = 1
    """How many parts of each batch this process computes, one after the other."""

    def batches(self, batches: Iterator[Tensor]) -> Iterator[Tensor]:
        """Yield this process's part of `batches`, the indices (n,) of each."""
        return batches

    def sizes(self, sizes: Iterator[int]) -> Iterator[int]:
        """Yield how many samples are in each of them, of batches that have `sizes`."""
        return sizes


WHOLE = Share()


class Slices(Share):
    """The slices `own` of every batch, which is cut into `num_slices` of nearly equal size."""

    def __init__(self, num_slices: int, own: Sequence[int]) -> None:
        self.num_slices = num_slices
        self.own = own
        self.num_parts = len(own)

    def batches(self, batches: Iterator[Tensor]) -> Iterator[Tensor]:
        """Yield slice by slice of each batch; the whole batch instead of an empty one."""
        for batch in batches:
            slices = batch.tensor_split(self.num_slices)
            yield from (slices[number] if len(slices[number]) else batch for number in self.own)

    def sizes(self, sizes: Iterator[int]) -> Iterator[int]:
        """Yield how many samples each slice has; the first ones of a batch have one more."""
        for size in sizes:
            smaller, num_larger = divmod(size, self.num_slices)
            yield from (smaller + (number < num_larger) for number in self.own)


class Turns(Share):
    """Every `num_turns`-th batch, whole: a mean over a batch is then the same whoever computes it."""

    def __init__(self, turn: int, num_turns: int) -> None:
        self.turn = turn
        self.num_turns = num_turns

    def batches(self, batches: Iterator[Tensor]) -> Iterator[Tensor]:
        """Yield this process's batch of each round; in the last round, the first one where there is none."""
        while batches_of_round := list(islice(batches, self.num_turns)):
            yield batches_of_round[self.turn if self.turn < len(batches_of_round) else 0]

    def sizes(self, sizes: Iterator[int]) -> Iterator[int]:
        """Yield how many samples each of them has, 0 for one that is another process's."""
        while sizes_of_round := list(islice(sizes, self.num_turns)):
            yield sizes_of_round[self.turn] if self.turn < len(sizes_of_round) else 0
