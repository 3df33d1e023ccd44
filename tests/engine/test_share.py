"""Each sample is computed by one process exactly, and all processes make the same number of steps."""

from __future__ import annotations

import itertools

import pytest
import torch

from base.sampling import EpochBatchSampler
from base.share import Share, Slices, Turns
from distributed.virtual_ranks import shards_of


def shared(num_samples: int, share: Share, first_batch: int = 0) -> list[tuple[list[int], int]]:
    """Return (samples, how many of them are counted) of every part that a process computes."""
    sampler = EpochBatchSampler(torch.arange(num_samples), 4, shuffle=True)
    sampler.share = share
    sampler.set_epoch(0, 1, first_batch)
    return list(zip((torch.as_tensor(batch).tolist() for batch in sampler), sampler.sizes(), strict=True))


@pytest.mark.parametrize("num", range(1, 7))
def test_slices_of_every_batch(num: int) -> None:
    for num_samples, first_batch in itertools.product(range(1, 18), (0, 1)):
        expected = [samples for samples, _ in shared(num_samples, Share(), first_batch)]
        parts = [shared(num_samples, Slices(num, [number]), first_batch) for number in range(num)]
        assert {len(part) for part in parts} == {len(expected)}
        for batch, *own in zip(expected, *parts):
            assert [sample for samples, counted in own for sample in samples[:counted]] == batch
            assert all(counted in (0, len(samples)) for samples, counted in own)


@pytest.mark.parametrize("num", range(1, 7))
def test_batches_in_turn(num: int) -> None:
    for num_samples in range(1, 18):
        expected = [samples for samples, _ in shared(num_samples, Share())]
        parts = [shared(num_samples, Turns(number, num)) for number in range(num)]
        assert len({len(part) for part in parts}) == 1
        rounds = list(zip(*parts))
        assert [samples for own in rounds for samples, counted in own if counted] == expected
        assert all(samples for own in rounds for samples, _ in own)


def test_limited_batches_are_shared_too() -> None:
    sampler = EpochBatchSampler(torch.arange(40), 4, shuffle=False)
    sampler.max_batches, sampler.share = 3, Turns(1, 2)
    assert [torch.as_tensor(batch).tolist() for batch in sampler] == [[4, 5, 6, 7], [8, 9, 10, 11]]
    assert list(sampler.sizes()) == [4, 0]


@pytest.mark.parametrize("size", range(1, 13))
def test_virtual_ranks_are_dealt_out_in_rows(size: int) -> None:
    parts = [shards_of(number, size, 12) for number in range(size)]
    assert [shard for part in parts for shard in part] == list(range(12))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
