"""What a batch is: the one place that takes it apart. Training, test, `--check` and prediction all use it.

Yours to change: `unpack` for a batch that is a dict; `run_batch` for outputs that are a tuple, or a loss with other
arguments or a mask. Batch, outputs and targets may be any nest of tensors, strings and None.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn

from base import Weight, loss_denominator


class BatchResult(NamedTuple):
    """The result of a batch."""

    loss: Tensor  # scalar: the mean over what `batch_weight` counts
    outputs: Any  # the metrics get these two
    targets: Any
    num_samples: float | None = None  # that metrics are means over; default: the batch's number of samples


def unpack(batch: Any) -> tuple[Any, Any]:
    """Return the inputs and targets of a batch."""
    inputs, targets = batch
    return inputs, targets


def predict_batch(model: nn.Module, inputs: Any) -> Any:
    """Return the outputs of `model` for the inputs of a batch; predict.py, which has no targets, calls only this."""
    return model(inputs)


def run_batch(model: nn.Module, criterion: Callable[..., Tensor], batch: Any) -> BatchResult:
    """Return loss and outputs for a batch, which is on the model's device."""
    inputs, targets = unpack(batch)
    outputs = predict_batch(model, inputs)
    return BatchResult(criterion(outputs, targets), outputs, targets)


def batch_weight(criterion: Callable[..., Tensor], batch: Any, num_samples: int) -> Weight:
    """Return the count that the loss of a batch is a mean over: its weight in a mean over several batches.

    It is known for torch's losses and for functions with an argument `ignore_index` or `weight`; for others it is the
    number of samples. Return another count if your loss is a mean over something else, such as unmasked tokens.
    """
    _, targets = unpack(batch)
    return loss_denominator(criterion, targets, num_samples)
