"""The order of an epoch is a function of (seed, epoch), a start in its middle gives the tail, and splits are exact."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.utils.data import Sampler, WeightedRandomSampler

from base import BaseDataLoader, TensorBatches, sampling, split_cache, split_indices
from base.sampling import DrawnBatchSampler, EpochBatchSampler
from utils import ConfigError, inf_loop

SAMPLES = torch.arange(100, 123)  # 23 indices that are not their own positions


def batches(seed: int, epoch: int, first_batch: int = 0, shuffle: bool = True) -> list[list[int]]:
    """Return the batches of up to 5 of SAMPLES that the sampler yields."""
    sampler = EpochBatchSampler(SAMPLES, batch_size=5, shuffle=shuffle, as_lists=True)
    sampler.seed, sampler.epoch, sampler.first_batch = seed, epoch, first_batch
    return [list(batch) for batch in sampler]


@pytest.mark.parametrize("shuffle", [True, False])
def test_an_epoch_is_every_index_once_in_batches_of_which_the_last_is_smaller(shuffle: bool) -> None:
    epoch = batches(0, 1, shuffle=shuffle)
    assert [len(batch) for batch in epoch] == [5, 5, 5, 5, 3]
    assert sorted(chain.from_iterable(epoch)) == SAMPLES.tolist()


def test_unshuffled_batches_keep_the_order_of_the_indices() -> None:
    assert list(chain.from_iterable(batches(7, 3, shuffle=False))) == SAMPLES.tolist()


def test_equal_seed_and_epoch_give_the_same_order_whatever_the_global_generator() -> None:
    first = batches(0, 1)
    torch.rand(10)
    assert batches(0, 1) == first


def test_every_seed_and_every_epoch_has_an_order_of_its_own() -> None:
    orders = [batches(seed, epoch) for seed in range(4) for epoch in range(1, 5)]
    assert all(one != other for i, one in enumerate(orders) for other in orders[:i])


def test_drawing_an_order_leaves_the_global_generator_as_it_was() -> None:
    before = torch.get_rng_state()
    batches(0, 1)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("first_batch", range(6))
@pytest.mark.parametrize("shuffle", [True, False])
def test_a_start_in_the_middle_yields_exactly_the_tail(first_batch: int, shuffle: bool) -> None:
    assert batches(5, 2, first_batch, shuffle) == batches(5, 2, 0, shuffle)[first_batch:]


@pytest.mark.parametrize(("num_samples", "batch_size", "expected"), [(23, 5, 5), (20, 5, 4), (3, 5, 1), (5, 1, 5)])
def test_length_is_that_of_the_whole_epoch_wherever_iteration_starts(
    num_samples: int, batch_size: int, expected: int
) -> None:
    sampler = EpochBatchSampler(torch.arange(num_samples), batch_size, shuffle=True)
    assert len(sampler) == len(list(sampler)) == expected
    sampler.first_batch = 1
    assert len(sampler) == expected


MANY = torch.arange(5000, 10_003)  # 1001 blocks of 5, the last one of 3, in 4 windows


def block_batches(seed: int, epoch: int, first_batch: int = 0, batch_size: int = 16) -> list[list[int]]:
    """Return the batches of MANY that are shuffled by blocks."""
    sampler = EpochBatchSampler(MANY, batch_size, True, block_size=5)
    return [batch.tolist() for batch in sampler.batches(seed, epoch, first_batch)]


@pytest.mark.parametrize("batch_size", [1, 16, 1280, 4000, 6000])
def test_an_epoch_by_blocks_is_every_index_once_in_batches_of_which_the_last_is_smaller(batch_size: int) -> None:
    epoch = block_batches(0, 1, batch_size=batch_size)
    assert sorted(chain.from_iterable(epoch)) == MANY.tolist()
    assert {len(batch) for batch in epoch[:-1]} <= {batch_size}
    assert len(epoch) == len(EpochBatchSampler(MANY, batch_size, True)) == -(-5003 // batch_size)


@pytest.mark.parametrize("batch_size", [16, 1280, 1281, 4000, 6000])
@pytest.mark.parametrize("seed", range(4))  # the short block is in another window
def test_a_start_in_the_middle_of_an_epoch_by_blocks_yields_exactly_the_tail(batch_size: int, seed: int) -> None:
    whole = block_batches(seed, 2, 0, batch_size)
    for first_batch in [*range(0, len(whole), 37), len(whole) - 1, len(whole)]:
        assert block_batches(seed, 2, first_batch, batch_size) == whole[first_batch:]


def test_blocks_come_in_an_order_of_each_seed_and_epoch_and_leave_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    orders = [block_batches(seed, epoch) for seed in range(3) for epoch in range(1, 4)]
    assert all(one != other for i, one in enumerate(orders) for other in orders[:i])
    assert block_batches(0, 1) == orders[0]
    assert torch.equal(torch.get_rng_state(), before)


def test_a_window_holds_whole_blocks_from_everywhere_well_mixed() -> None:
    window = torch.tensor(list(chain.from_iterable(block_batches(0, 1)))[: 5 * sampling.WINDOW_BLOCKS])
    blocks, sizes = ((window - 5000) // 5).unique(return_counts=True)
    assert len(blocks) == sampling.WINDOW_BLOCKS
    assert set(sizes.tolist()) <= {3, 5}
    assert blocks[0] < 100
    assert blocks[-1] > 900
    assert len(((window[:64] - 5000) // 5).unique()) > 50


SIZES = torch.tensor([3, 0, 500, 41, 1, 300, 155])  # of the blocks of a dataset of 1000 samples


def ragged_batches(indices: torch.Tensor, epoch: int = 1, first_batch: int = 0) -> list[list[int]]:
    """Return the batches of `indices` that are shuffled by blocks of SIZES, two at a time."""
    sampler = EpochBatchSampler(indices, 16, True, block_size=SIZES, window_blocks=2)
    return [batch.tolist() for batch in sampler.batches(0, epoch, first_batch)]


@pytest.mark.parametrize("indices", [torch.arange(1000), torch.arange(1, 1000, 3), torch.arange(600, 700)])
def test_blocks_of_several_sizes_are_those_of_the_dataset_whatever_is_left_out(indices: torch.Tensor) -> None:
    for epoch in range(1, 6):
        batches = ragged_batches(indices, epoch)
        order = torch.tensor(list(chain.from_iterable(batches)))
        assert torch.equal(order.sort().values, indices)
        for first_batch in range(len(batches) + 1):
            assert ragged_batches(indices, epoch, first_batch) == batches[first_batch:]
        blocks = torch.searchsorted(SIZES.cumsum(0), order, right=True)
        at = {block: (blocks == block).nonzero().flatten() for block in blocks.tolist()}
        begun = [sum(bool(seen[0] <= i <= seen[-1]) for seen in at.values()) for i in range(len(order))]
        assert max(begun) <= 2  # so many blocks are read from at a time


def test_blocks_of_one_size_are_in_the_order_of_blocks_of_that_size_each() -> None:
    sizes = torch.tensor([5] * 1000 + [3])
    assert len(MANY) == sizes.sum()
    sampler = EpochBatchSampler(MANY - 5000, 16, True, block_size=sizes)
    assert [(batch + 5000).tolist() for batch in sampler.batches(2, 3, 0)] == block_batches(2, 3)


def test_without_shuffling_blocks_change_nothing() -> None:
    sampler = EpochBatchSampler(MANY, 16, False, block_size=5)
    assert list(chain.from_iterable(sampler.batches(0, 1, 0))) == MANY.tolist()


@pytest.mark.parametrize(
    ("held_out", "expected"), [(0, 0), (0.0, 0), (1, 1), (0.1, 2), (0.5, 11), (7, 7), (22, 22), (0.99, 22)]
)
def test_split_is_disjoint_complete_ascending_and_of_the_size_asked_for(held_out: float | int, expected: int) -> None:
    kept, held = split_indices(23, held_out, "where")
    assert (kept.dtype, held.dtype) == (torch.int64, torch.int64)
    assert len(held) == expected
    assert sorted(kept.tolist() + held.tolist()) == list(range(23))
    assert (kept.tolist(), held.tolist()) == (sorted(kept.tolist()), sorted(held.tolist()))


@pytest.mark.parametrize("held_out", [0, 1, 0.3, 999])
def test_split_is_the_beginning_and_the_rest_of_one_permutation(held_out: float | int) -> None:
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    size = int(1000 * held_out) if isinstance(held_out, float) else held_out
    kept, held = split_indices(1000, held_out, "where")
    assert torch.equal(kept, order[size:].sort().values)
    assert torch.equal(held, order[:size].sort().values)


@pytest.mark.parametrize("held_out", [0, 5, 0.5])
def test_split_of_given_indices_is_that_of_their_positions(held_out: float | int) -> None:
    kept, held = split_indices(23, held_out, "where", indices=SAMPLES)
    positions = split_indices(23, held_out, "where")
    assert torch.equal(kept, SAMPLES[positions[0]])
    assert torch.equal(held, SAMPLES[positions[1]])


def test_split_is_the_same_whatever_the_global_seed_and_leaves_it_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = split_indices(100, 0.2, "where")
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert [part.tolist() for part in split_indices(100, 0.2, "where")] == [part.tolist() for part in first]


@pytest.mark.parametrize("damaged", [b"", b"\0" * 4, b"\0" * 129, b"\1" * 129])
def test_a_split_that_was_kept_is_the_same_and_where_it_is_damaged_it_is_drawn(
    damaged: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(split_cache, "MIN_SAMPLES", 1000)
    expected = split_indices(1000, 0.2, "where")

    def check() -> None:
        for indices in (None, torch.arange(1000)):
            found = split_indices(1000, 0.2, "where", indices=indices, cache_dir=tmp_path / "cache")
            assert all(map(torch.equal, found, expected))

    check()
    (kept,) = (tmp_path / "cache").iterdir()
    kept.write_bytes(damaged)
    check()
    monkeypatch.delattr(split_cache, "_draw")
    check()


def test_split_is_spread_over_the_samples_rather_than_one_end_of_them() -> None:
    _, held = split_indices(1000, 0.2, "where")
    assert held.tolist() not in (list(range(200)), list(range(800, 1000)))


@pytest.mark.parametrize(
    ("num_samples", "held_out"), [(10, 10), (10, 11), (10, -1), (10, 1.0), (10, 1.5), (10, -0.5), (10, 0.05), (0, 0)]
)
def test_split_that_leaves_or_holds_out_nothing_is_refused_with_its_place(
    num_samples: int, held_out: float | int
) -> None:
    with pytest.raises(ConfigError) as caught:
        split_indices(num_samples, held_out, "data_loader.args.validation_split")
    assert str(caught.value).startswith(f"data_loader.args.validation_split: {held_out} of {num_samples} samples")


# What a sampler of torch's draws.


def lists(sampler: Iterable[Tensor | list[int]]) -> list[list[int]]:
    """Return the batches of a sampler as lists, which compare."""
    return [torch.as_tensor(batch).tolist() for batch in sampler]


def drawn(seed: int, epoch: int, first_batch: int = 0, *, as_lists: bool = False) -> list[list[int]]:
    """Return the batches of up to 5 that a weighted sampler draws from SAMPLES."""
    sampler = DrawnBatchSampler(WeightedRandomSampler([1.0] * 23, 12), SAMPLES, 5, as_lists=as_lists)
    sampler.set_epoch(seed, epoch, first_batch)
    assert list(sampler.sizes()) == [5, 5, 2][first_batch:]
    assert len(sampler) == 3
    return lists(sampler)


def test_a_sampler_draws_positions_and_the_batches_are_the_samples_there() -> None:
    batches = drawn(0, 1)
    assert [len(batch) for batch in batches] == [5, 5, 2]
    assert set(chain.from_iterable(batches)) <= set(SAMPLES.tolist())
    assert drawn(0, 1, as_lists=True) == batches
    assert drawn(0, 1, 2) == batches[2:]
    assert len({str(drawn(seed, epoch)) for seed in range(3) for epoch in range(1, 4)}) == 9


def test_drawing_with_a_sampler_leaves_the_global_generator_as_it_was() -> None:
    before = torch.get_rng_state()
    drawn(3, 4)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_sampler_gets_the_epoch() -> None:
    class WithEpochs(Sampler[int]):
        epochs: ClassVar[list[int]] = []

        def set_epoch(self, epoch: int) -> None:
            self.epochs.append(epoch)

        def __iter__(self) -> Iterator[int]:
            return iter(range(6))

    sampler = DrawnBatchSampler(WithEpochs(), SAMPLES, 4)
    for epoch in (3, 1):
        sampler.set_epoch(0, epoch)
        assert lists(sampler) == [[100, 101, 102, 103], [104, 105]]
    assert WithEpochs.epochs == [3, 1]


def test_a_batch_size_that_changes_changes_the_batches() -> None:
    sampler = DrawnBatchSampler(WeightedRandomSampler([1.0] * 23, 12), SAMPLES, 5)
    assert list(sampler.sizes()) == [5, 5, 2]
    sampler.batch_size = 4
    assert list(sampler.sizes()) == [4, 4, 4]


@pytest.mark.parametrize("max_batches", [1, 3, 9])
@pytest.mark.parametrize("first_batch", [0, 2])
def test_an_epoch_can_be_cut_short(max_batches: int, first_batch: int) -> None:
    for sampler in (
        EpochBatchSampler(SAMPLES, 5, True),
        DrawnBatchSampler(WeightedRandomSampler([1.0] * 23, 23), SAMPLES, 5),
    ):
        sampler.set_epoch(0, 1, first_batch)
        whole = lists(sampler)
        sampler.max_batches = max_batches
        assert lists(sampler) == whole[: max(0, max_batches - first_batch)]


# Endless passes.


def test_inf_loop_repeats_the_loader_from_its_beginning() -> None:
    assert list(islice(inf_loop([1, 2, 3]), 8)) == [1, 2, 3, 1, 2, 3, 1, 2]


def endless() -> inf_loop:
    """Return endless passes over 4 batches in an order of each pass."""
    loop = inf_loop(BaseDataLoader(TensorBatches(SAMPLES, SAMPLES), 6, True, 0, 0))
    loop.seed = 3
    return loop


def targets_of(batches: Iterable[Any]) -> list[list[int]]:
    """Return the targets of each batch."""
    return [targets.tolist() for _, targets in batches]


@pytest.mark.parametrize("num_batches", [0, 1, 3, 4, 5, 8, 10])
def test_inf_loop_goes_on_where_its_state_was_taken(num_batches: int) -> None:
    whole = targets_of(islice(endless(), 14))
    assert len({str(whole[at : at + 4]) for at in (0, 4, 8)}) == 3  # each pass has an order of its own
    first, second = endless(), endless()
    assert targets_of(islice(first, num_batches)) == whole[:num_batches]
    second.load_state_dict(first.state_dict())
    assert targets_of(islice(second, 14 - num_batches)) == whole[num_batches:]


def test_inf_loop_over_what_cannot_start_in_its_middle_starts_the_pass_again() -> None:
    first, second = inf_loop([1, 2, 3]), inf_loop([1, 2, 3])
    list(islice(first, 5))
    second.load_state_dict(first.state_dict())
    assert list(islice(second, 4)) == [1, 2, 3, 1]
