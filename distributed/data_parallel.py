"""Data parallel training: each process computes a slice of every batch. And torch's own form of it, DDP."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from distributed.launch import rank, world_size
from distributed.strategy import Pair, Several, Total, Weight
from utils.errors import ConfigError
from utils.position import Position
from utils.rng import mix_seed, seed_everything


class Averaging(Several):
    """What DDP and FSDP have in common: a slice for each process, and gradients averaged by torch."""

    def __init__(self, options: Any, device: torch.device, seed: int) -> None:
        super().__init__(options, device, seed)
        self.num_shards, self.own_shards = world_size(), (rank(),)
        self._buffers: list[Tensor] = []
        self._total: Total = lambda: 0.0

    def check(self) -> None:
        """Raise ConfigError where BatchNorm cannot be synchronized."""
        if self.options.strategy.sync_batchnorm and self.device.type == "cpu":
            raise ConfigError("trainer.strategy.sync_batchnorm: torch has it for GPUs alone; this run is on the CPU")

    def attach(self, modules: list[nn.Module], parameters: list[nn.Parameter], position: Position) -> None:
        """Take what is trained, and draw other random numbers than the other processes."""
        super().attach(modules, parameters, position)
        self._buffers = [buffer for module in modules for buffer in module.buffers()]
        if rank() > 0:  # dropout must differ between the slices; the first process goes on as it would alone
            seed_everything(mix_seed(self.seed, rank()))

    def begin_step(self, microbatches: Sequence[Any], weights: list[Weight]) -> tuple[list[Weight], Total]:
        """Return the weights, 0 for a slice without samples; and a function for their mean, as torch averages."""
        weights = self._own_weights(microbatches, weights)
        self._total = self._sum_weights(weights)
        return weights, lambda: self._total() / world_size()

    def end_step(self, losses: list[Tensor]) -> Tensor:
        """Return the sum of this process's `losses`; give all processes the buffers of the first, as DDP does."""
        self._total()  # also where no loss was divided by it
        for buffer in self._buffers:
            dist.broadcast(buffer, src=0)
        return super().end_step(losses)

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean over processes."""
        values = values.clone()
        dist.all_reduce(values)
        return values / world_size()


class DataParallel(Averaging):
    """torch's DistributedDataParallel: each process has the whole model.

    Li et al. 2020, "PyTorch Distributed: Experiences on Accelerating Data Parallel Training".
    """

    def __init__(self, options: Any, device: torch.device, seed: int) -> None:
        super().__init__(options, device, seed)
        self._late: list[nn.Parameter] = []

    def attach(self, modules: list[nn.Module], parameters: list[nn.Parameter], position: Position) -> None:
        """Let every backward of the last microbatch of a step average the gradients, overlapped with computing."""
        from torch.distributed._composable.replicate import replicate

        chosen = self.options.strategy
        names = ("find_unused_parameters", "static_graph", "gradient_as_bucket_view")
        for module in modules:
            # The composable form of DDP: the module stays as it is, with its methods and the names of its weights.
            name = type(module).__name__
            replicate(module, **{name: getattr(chosen, name) for name in names})
            type(module).__name__ = name  # that of the subclass that this made of it
        super().attach(modules, parameters, position)

    def train_too(self, parameters: list[nn.Parameter]) -> None:
        """Take more of what is trained; DDP, which has its buckets by now, knows nothing of these."""
        super().train_too(parameters)
        self._late += parameters

    def end_step(self, losses: list[Tensor]) -> Tensor:
        """Return the sum of this process's `losses`; average the gradients that DDP does not."""
        if self._late:
            grads = [torch.zeros_like(late) if late.grad is None else late.grad for late in self._late]
            sums = torch.cat([grad.reshape(-1) for grad in grads])
            dist.all_reduce(sums)
            for late, grad, part in zip(self._late, grads, sums.split([grad.numel() for grad in grads])):
                late.grad = grad.copy_(part.view(grad.shape) / world_size())
        return super().end_step(losses)

    def passes(self, microbatches: Sequence[Any], weights: list[Weight]) -> Iterator[Pair]:
        """Yield the microbatches; gradients are exchanged in the backward of the last one alone."""
        for index, pair in enumerate(zip(microbatches, weights)):
            for module in self.modules:
                module.set_requires_gradient_sync(index == len(microbatches) - 1)  # type: ignore[operator]
            yield pair
