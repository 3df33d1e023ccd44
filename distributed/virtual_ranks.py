"""Training whose bits do not depend on the number of processes: a batch is always computed in the same N slices.

Whatever could depend on a process is a function of the slice: its samples, its random numbers, the buffers that it
starts from. The gradients of the slices are added in a fixed tree (see pairwise.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from distributed.collective import gather_numbers, gather_segments, swap_segments
from distributed.launch import rank, world_size
from distributed.pairwise import PairwiseSum, nodes_of
from distributed.strategy import Pair, Several, Total, Weight
from utils.errors import ConfigError
from utils.position import Position
from utils.rng import mix_seed, seed_for


def shards_of(number: int, size: int, num_shards: int) -> list[int]:
    """Return the slices that process `number` of `size` computes: as many as the others, or one more."""
    smaller, num_larger = divmod(num_shards, size)
    start = number * smaller + min(number, num_larger)
    return list(range(start, start + smaller + (number < num_larger)))


class VirtualRanks(Several):
    """N slices of every batch, computed one after the other by however many processes there are, up to N."""

    fixes_world_size = False

    def __init__(self, options: Any, device: torch.device, seed: int) -> None:
        super().__init__(options, device, seed)
        self.num_shards = options.virtual_ranks
        self.own_shards = shards_of(rank(), world_size(), self.num_shards)
        self._shares: list[Weight] = []  # of the whole batch, for each slice of this process
        self._sum = PairwiseSum()
        self._place: tuple[int, ...] | None = None  # while a slice is computed

    def check(self) -> None:
        """Raise ConfigError where options do not go with slices that are computed one after the other."""
        if world_size() > self.num_shards:
            raise ConfigError(f"trainer.virtual_ranks: {self.num_shards}, but there are {world_size()} processes")
        if self.options.strategy.sync_batchnorm:
            raise ConfigError(
                "trainer.strategy.sync_batchnorm: does not go with virtual_ranks, where each slice has statistics of "
                "its own"
            )

    def attach(self, modules: list[nn.Module], parameters: list[nn.Parameter], position: Position) -> None:
        """Take what is trained."""
        super().attach(modules, parameters, position)
        self._buffers = [buffer for module in modules for buffer in module.buffers()]
        self._before = [buffer.clone() for buffer in self._buffers]

    def begin_step(self, microbatches: Sequence[Any], weights: list[Weight]) -> tuple[list[Weight], Total]:
        """Return the weights, 0 for a slice without samples; and a function for their sum over all slices."""
        weights = self._own_weights(microbatches, weights)
        num_own, num_most = len(self.own_shards), -(-self.num_shards // world_size())
        own = [sum(weights[index::num_own]) for index in range(num_own)]
        total = self._sum_weights([*own, *[0.0] * (num_most - num_own)])()
        self._shares = [weight / total if isinstance(total, Tensor) or total else 0.0 for weight in own]
        return weights, lambda: total

    def passes(self, microbatches: Sequence[Any], weights: list[Weight]) -> Iterator[Pair]:
        """Yield the microbatches of one slice after the other, each slice from the same beginning."""
        step, num_own = self.position.global_step, len(self.own_shards)
        self._sum, self._num_losses, self._has_grad = PairwiseSum(), [], [False] * len(self.parameters)
        copy_all(self._before, self._buffers)
        for index, shard in enumerate(self.own_shards):
            copy_all(self._buffers, self._before)
            for parameter in self.parameters:
                parameter.grad = None
            own = [pair for pair in list(zip(microbatches, weights))[index::num_own] if pair[0].num_samples]
            for number, pair in enumerate(own):
                self._place = (step, shard, number)
                seed_for(self.device, mix_seed(self.seed, step, shard, number))
                yield pair
            self._place = None
            self._num_losses.append(len(own))
            self._sum.add((0, shard), self._flattened(shard, self._shares[index]))

    def end_step(self, losses: list[Tensor]) -> Tensor:
        """Return the loss of the whole batch; add up the gradients, and the changes of buffers, of all slices."""
        loss_sum, rest = PairwiseSum(), iter(losses)
        for shard, num_losses in zip(self.own_shards, self._num_losses):
            loss_sum.add((0, shard), sum(islice(rest, num_losses), torch.zeros(1, device=self.device)))
        vectors = [torch.cat([vector, loss]) for (_, vector), (_, loss) in zip(self._sum.nodes, loss_sum.nodes)]
        sizes = [tensor.numel() for tensor in (*self.parameters, *self._buffers)]
        *parts, loss = self._sum_over_processes(vectors).split([*sizes, 1])
        self._restore(parts)
        seed_for(self.device, mix_seed(self.seed, self.position.global_step, self.num_shards))
        return loss.view(())

    def place(self) -> tuple[int, ...]:
        """Return where an update of a metric stands among those of all slices."""
        return super().place() if self._place is None else self._place

    @torch.no_grad()
    def _flattened(self, shard: int, share: Weight) -> Tensor:
        """Return what slice `shard` gave as one vector: its gradients and the changes of its buffers.

        Buffers are averaged; but counters, such as BatchNorm's number of batches, are those of the first slice. It is
        their changes, since an average of equal values need not be equal to them.
        """
        parts: list[Tensor] = []
        for index, parameter in enumerate(self.parameters):
            parts.append(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
            self._has_grad[index] |= parameter.grad is not None
        for buffer, before in zip(self._buffers, self._before):
            if buffer.is_floating_point():
                parts.append((buffer - before) * share)
            else:
                parts.append((buffer.long() - before.long()) * int(shard == 0))
        return torch.cat([part.reshape(-1) for part in parts])

    @torch.no_grad()
    def _restore(self, parts: Sequence[Tensor]) -> None:
        """Write the sums over all slices back into gradients and buffers."""
        num_with_grad = [sum(column) for column in zip(*gather_numbers([float(has) for has in self._has_grad]))]
        for parameter, part, num_grads in zip(self.parameters, parts, num_with_grad):
            grad = torch.empty_like(parameter).copy_(part.view(parameter.shape))  # in memory as the parameter is
            parameter.grad = grad if num_grads else None
        for buffer, before, part in zip(self._buffers, self._before, parts[len(self.parameters) :]):
            buffer.copy_(before + part.view(before.shape).to(before.dtype))

    def _sum_over_processes(self, vectors: list[Tensor]) -> Tensor:
        """Return the sum of the vectors of all slices; `vectors` are those at the nodes of the tree that are here.

        Each process adds up one segment of the vectors for all, so that nobody has to hold those of everybody.
        """
        size, length = world_size(), vectors[0].numel()
        nodes = [nodes_of(shards_of(number, size, self.num_shards)) for number in range(size)]
        segment = -(-length // size)
        sent = vectors[0].new_zeros(size, len(vectors), segment)
        for index, vector in enumerate(vectors):
            sent[:, index] = nn.functional.pad(vector, (0, size * segment - length)).view(size, segment)
        received = vectors[0].new_empty(sum(map(len, nodes)), segment)
        swap_segments(received, sent, [len(part) for part in nodes])
        tree = PairwiseSum()
        for node, vector in zip((node for part in nodes for node in part), received):
            tree.add(node, vector)
        return gather_segments(tree.total())[:length]


def copy_all(targets: list[Tensor], sources: list[Tensor]) -> None:
    """Copy each of `sources` into its target."""
    if targets:
        torch._foreach_copy_(targets, sources)
