"""The bits of a sum do not depend on who added up which part of it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from distributed.pairwise import PairwiseSum, nodes_of
from distributed.virtual_ranks import shards_of


def sum_by(size: int, values: Tensor) -> Tensor:
    """Return the sum of the rows of `values`, as so many processes add them up."""
    tree = PairwiseSum()
    for number in range(size):
        own, shards = PairwiseSum(), shards_of(number, size, len(values))
        for shard in shards:
            own.add((0, shard), values[shard].clone())
        assert [node for node, _ in own.nodes] == nodes_of(shards)
        assert len(own.nodes) <= 2 * len(values).bit_length()
        for node, value in own.nodes:
            tree.add(node, value)
    return tree.total()


@pytest.mark.parametrize("num_values", [1, 2, 3, 7, 8, 12, 33])
def test_any_number_of_processes_gives_the_same_bits(num_values: int) -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(num_values, 100, generator=generator) * 10 ** torch.randn(num_values, 1, generator=generator)
    expected = sum_by(1, values)
    torch.testing.assert_close(expected, values.double().sum(0).float(), rtol=1e-4, atol=1e-4)
    for size in range(2, num_values + 1):
        assert torch.equal(sum_by(size, values), expected)


def test_another_order_would_give_other_bits() -> None:
    values = torch.randn(12, 100, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(sum_by(1, values), torch.stack(list(reversed(values))).cumsum(0)[-1])
