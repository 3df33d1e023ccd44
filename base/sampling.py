"""Which samples come when: the order of an epoch is a function of (seed, epoch), and can start anywhere in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count, islice
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import Sampler

from base.share import WHOLE, Share
from utils.rng import cpu_rng_kept, mix_seed, permutation, seed_cpu

T = TypeVar("T")
LOOKUP_SAMPLES = 1 << 18
WINDOW_BLOCKS = 256  # so many blocks are shuffled together, unless the dataset says otherwise


class EpochIndices(list[int]):
    """The dataset indices of a batch on their way to a worker, and the seed and epoch that they belong to."""

    def __init__(self, indices: Iterable[int], seed: int, epoch: int) -> None:
        super().__init__(indices)
        self.seed, self.epoch = seed, epoch

    def __reduce__(self) -> tuple[Any, ...]:
        """Cross to a worker as plain data."""
        return type(self), (list(self), self.seed, self.epoch)


class EpochBatchSampler(Sampler[Any]):
    """Batches of dataset indices, the last one possibly smaller.

    The order depends on (seed, epoch) alone, so a run can resume in the middle of an epoch: `first_batch` is where
    iteration starts, and nothing before it is drawn or skipped one by one.

    With `block_size`, for data that is read from disk by so many samples in a row, an epoch is shuffled by blocks of
    `indices`: the blocks are put in a random order, and then the samples of every `window_blocks` of them, by default
    WINDOW_BLOCKS. Blocks of several sizes, (B,) int64, are those of the dataset; `indices`, which may leave samples of
    them out, ascend.
    """

    def __init__(
        self,
        indices: Tensor,
        batch_size: int,
        shuffle: bool,
        *,
        as_lists: bool = False,
        block_size: int | Tensor | None = None,
        window_blocks: int | None = None,
    ) -> None:
        """Iterate over tensors on `self.device`, or `as_lists`, which cross to a worker without shared memory."""
        self.indices = indices  # (N,) int64
        self.device = indices.device
        self.as_lists = as_lists
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.block_size = block_size
        self.window_blocks = window_blocks
        self.seed = 0
        self.epoch = 0
        self.first_batch = 0
        self.max_batches: int | None = None  # of an epoch, for debugging
        self.share: Share = WHOLE

    def __len__(self) -> int:
        """Batches in a whole epoch, wherever iteration starts and however many processes share them."""
        return -(-len(self.indices) // self.batch_size)

    def set_epoch(self, seed: int, epoch: int, first_batch: int = 0) -> None:
        """Make the next iteration yield the batches of `epoch` from `first_batch` on."""
        self.seed, self.epoch, self.first_batch = seed, epoch, first_batch

    def sizes(self) -> Iterator[int]:
        """Yield how many samples of its own each batch has that the next iteration yields."""
        return self.share.sizes(self._up_to_limit(self._batch_sizes()))

    def _batch_sizes(self) -> Iterator[int]:
        for start in range(self.first_batch * self.batch_size, len(self.indices), self.batch_size):
            yield min(self.batch_size, len(self.indices) - start)

    def __iter__(self) -> Iterator[Tensor | list[int]]:
        batches = self._up_to_limit(self.batches(self.seed, self.epoch, self.first_batch))
        batches = self.share.batches(batches)
        seed, epoch = self.seed, self.epoch
        return (EpochIndices(batch.tolist(), seed, epoch) for batch in batches) if self.as_lists else batches

    def _up_to_limit(self, items: Iterator[T]) -> Iterator[T]:
        if self.max_batches is None:
            return items
        return islice(items, max(0, self.max_batches - self.first_batch))

    def batches(self, seed: int, epoch: int, first_batch: int) -> Iterator[Tensor]:
        """Yield the batches of `epoch` from `first_batch` on, (n,) int64; a pure function of its arguments."""
        if self.shuffle and self.block_size is not None:
            yield from self._block_batches(self._blocks(self.block_size), seed, epoch, first_batch)
            return
        order = self.indices
        if self.shuffle:
            order = permutation(len(self.indices), torch.Generator().manual_seed(mix_seed(seed, epoch)))
        many = max(1, LOOKUP_SAMPLES // self.batch_size) * self.batch_size
        for part in order[first_batch * self.batch_size :].split(many):  # not a copy for each batch, nor of all indices
            indices = (self.indices[part] if self.shuffle else part).to(self.device)
            for start in range(0, len(indices), self.batch_size):
                yield indices[start : start + self.batch_size]

    def _blocks(self, block_size: int | Tensor) -> Sequence[Tensor]:
        if isinstance(block_size, int):
            return self.indices.split(block_size)
        ends = torch.searchsorted(self.indices, block_size.cumsum(0))
        return self.indices.split(ends.diff(prepend=ends.new_zeros(1)).tolist())

    def _block_batches(self, blocks: Sequence[Tensor], seed: int, epoch: int, first_batch: int) -> Iterator[Tensor]:
        """Yield batches that are cut from one window of blocks after the other, also across their borders."""
        order = torch.randperm(len(blocks), generator=torch.Generator().manual_seed(mix_seed(seed, epoch)))
        to_skip, rest = first_batch * self.batch_size, self.indices[:0]
        for number, window in enumerate(order.split(self.window_blocks or WINDOW_BLOCKS)):
            parts = [blocks[i] for i in window.tolist()]
            size = sum(len(part) for part in parts)
            if to_skip >= size:
                to_skip -= size
                continue
            generator = torch.Generator().manual_seed(mix_seed(seed, epoch, number))
            samples = torch.cat(parts)[torch.randperm(size, generator=generator)]
            rest, to_skip = torch.cat([rest, samples[to_skip:]]), 0
            num_whole = len(rest) // self.batch_size
            for start in range(0, num_whole * self.batch_size, self.batch_size):
                yield rest[start : start + self.batch_size]
            rest = rest[num_whole * self.batch_size :]
        if len(rest) > 0:
            yield rest


class DrawnBatchSampler(EpochBatchSampler):
    """Batches that a sampler of torch's draws, such as a WeightedRandomSampler.

    What it draws in an epoch is a function of (seed, epoch) too, since it draws with generators seeded by these.
    """

    def __init__(self, sampler: Iterable[Any], indices: Tensor, batch_size: int, *, as_lists: bool = False) -> None:
        """`sampler` yields positions in `indices`; a BatchSampler yields lists of them, and knows its batch size."""
        super().__init__(indices, batch_size, shuffle=True, as_lists=as_lists)
        self.sampler = sampler
        self._drawn: tuple[tuple[int, ...], list[Tensor]] | None = None  # the last drawn, and by what

    def __len__(self) -> int:
        return len(self._draw(self.seed, self.epoch))

    def _batch_sizes(self) -> Iterator[int]:
        for batch in self._draw(self.seed, self.epoch)[self.first_batch :]:
            yield len(batch)

    def batches(self, seed: int, epoch: int, first_batch: int) -> Iterator[Tensor]:
        """Yield the batches of `epoch` from `first_batch` on, (n,) int64; a pure function of its arguments."""
        return (self.indices[batch].to(self.device) for batch in self._draw(seed, epoch)[first_batch:])

    def _draw(self, seed: int, epoch: int) -> list[Tensor]:
        """Return the positions of each batch; all of an epoch, since a sampler cannot start in its middle."""
        key = (seed, epoch, self.batch_size)
        if self._drawn is None or self._drawn[0] != key:
            with cpu_rng_kept():
                seed_cpu(mix_seed(seed, epoch))
                generator, set_epoch = (getattr(self.sampler, name, None) for name in ("generator", "set_epoch"))
                if generator is not None:
                    generator.manual_seed(mix_seed(seed, epoch))
                if set_epoch is not None:
                    set_epoch(epoch)
                drawn = list(self.sampler)
            is_batched = bool(drawn) and isinstance(drawn[0], list | tuple)
            batches = drawn if is_batched else torch.tensor(drawn).split(self.batch_size)
            self._drawn = key, [torch.as_tensor(batch) for batch in batches]
        return self._drawn[1]


def epoch_steps(
    batches_of_pass: Callable[[int, int], Iterator[T]],
    num_batches: int,
    epoch: int,
    first_step: int,
    len_epoch: int | None,
    grad_accum_steps: int,
    parts_per_batch: int = 1,
) -> Iterator[list[T]]:
    """Yield the `grad_accum_steps` batches of each optimizer step of `epoch` (from 1), from `first_step` (from 0) on.

    An epoch is one pass over the data, of `num_batches`, and its last step may have fewer of them; or, with
    `len_epoch`, it is that many steps of an endless stream of passes. `batches_of_pass(number, first_batch)` starts a
    pass, numbered from 1, anywhere in it, and yields `parts_per_batch` for each batch.
    """
    first_batch = first_step * grad_accum_steps
    if len_epoch is None:
        batches, num_steps = batches_of_pass(epoch, first_batch), -(-num_batches // grad_accum_steps)
    else:
        first_batch += (epoch - 1) * len_epoch * grad_accum_steps
        batches, num_steps = _endless(batches_of_pass, *divmod(first_batch, num_batches)), len_epoch
    for _ in range(first_step, num_steps):
        yield list(islice(batches, grad_accum_steps * parts_per_batch))


def _endless(batches_of_pass: Callable[[int, int], Iterator[T]], passes_done: int, first_batch: int) -> Iterator[T]:
    yield from batches_of_pass(passes_done + 1, first_batch)
    for number in count(passes_done + 2):
        yield from batches_of_pass(number, 0)
