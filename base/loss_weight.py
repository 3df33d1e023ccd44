"""What the loss of a batch is a mean over: batches are then averaged as one batch of all their samples would be."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn

IGNORED = -100  # the default `ignore_index` of torch
SMALLEST = torch.finfo(torch.float32).tiny

Weight = float | Tensor
"""A number, or on an accelerator a scalar tensor, which the host does not wait for."""


def loss_denominator(criterion: Callable[..., Tensor], targets: Any, num_samples: int) -> Weight:
    """Return what `criterion` divides by for a batch of `num_samples`, up to a factor that all batches share.

    - CrossEntropyLoss, NLLLoss, and a function with an argument `ignore_index` or `weight`, by which it must mean the
      same: the sum of the weights of the class indices (N,) or (N, d1, ...) that are not ignored.
    - Those losses with probabilities (N, C, d1, ...), and any other loss of torch.nn: the number of targets.
    - Any other: `num_samples`.
    """
    options = _class_options(criterion)
    if options is None or not isinstance(targets, Tensor):
        return num_samples
    weight, ignore_index = options
    if targets.is_floating_point() or (weight is None and ignore_index is None):
        return targets.numel()
    targets = targets.long()
    counted = targets != ignore_index if ignore_index is not None else torch.ones_like(targets, dtype=torch.bool)
    if weight is None:
        total = torch.count_nonzero(counted)
    else:
        total = (weight[targets.clamp(0, len(weight) - 1)] * counted).sum()
    return total.item() if total.device.type == "cpu" else total


def _class_options(criterion: Callable[..., Tensor]) -> tuple[Tensor | None, int | None] | None:
    """Return the class weights and the ignored index of a loss that torch wrote or that has them as arguments."""
    if isinstance(criterion, nn.Module):
        if type(criterion).forward.__module__ != nn.modules.loss.__name__:
            return None
        if "ignore_index" not in vars(criterion):  # such losses have weights too, which they do not divide by
            return None, None
        weight: Any = criterion.weight
        return weight, vars(criterion)["ignore_index"]
    return _function_options(criterion) if inspect.isfunction(criterion) or isinstance(criterion, partial) else None


@lru_cache(maxsize=16)  # a step asks each time
def _function_options(function: Callable[..., Tensor]) -> tuple[Tensor | None, int | None] | None:
    """Return the values of the arguments `weight` and `ignore_index`, which may be bound; None where it has neither."""
    arguments = inspect.signature(function, follow_wrapped=False).parameters
    if not {"weight", "ignore_index"} & arguments.keys():
        return None
    weight = arguments["weight"].default if "weight" in arguments else None
    ignore_index = arguments["ignore_index"].default if "ignore_index" in arguments else IGNORED
    is_class_weight = weight is None or (isinstance(weight, Tensor) and weight.ndim == 1)
    return (weight, ignore_index) if is_class_weight and isinstance(ignore_index, int) else None


def weighted(loss: Tensor, weight: Weight, total: Weight) -> Tensor:
    """Return what the mean loss of a batch adds to the mean over `total`: nothing where it is a mean over nothing."""
    if isinstance(weight, Tensor):
        share = weight / torch.clamp(torch.as_tensor(total), min=SMALLEST)
        return torch.where(weight > 0, loss * share, 0.0)
    return loss * (weight / total) if weight else loss.nan_to_num() * 0.0
