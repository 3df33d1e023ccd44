"""Losses: functions of (outputs, targets) that return the mean over the batch. torch.nn's need no entry here.

Arguments named `ignore_index` and `weight` mean what they do in torch: batches are averaged by what they leave.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from utils import ConfigError
from utils.annotations import Probability

CLASSES = "scores (N, C) of at least 2 classes, classes (N,)"


def nll_loss(outputs: Tensor, targets: Tensor, ignore_index: int = -100) -> Tensor:
    """Negative log-likelihood of log-probabilities (N, C) and class indices (N,)."""
    _check("nll_loss", outputs, targets, outputs.ndim > 1 and outputs.shape[1] > 1, CLASSES)
    return F.nll_loss(outputs, targets, ignore_index=ignore_index)


def cross_entropy(
    outputs: Tensor, targets: Tensor, label_smoothing: Probability = 0.0, ignore_index: int = -100
) -> Tensor:
    """Cross entropy of logits (N, C) and class indices (N,)."""
    _check("cross_entropy", outputs, targets, outputs.ndim > 1 and outputs.shape[1] > 1, CLASSES)
    return F.cross_entropy(outputs, targets, label_smoothing=label_smoothing, ignore_index=ignore_index)


def mse_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error of two tensors of the same shape."""
    _check("mse_loss", outputs, targets, outputs.shape == targets.shape, "both of one shape")
    return F.mse_loss(outputs, targets)


def _check(name: str, outputs: Tensor, targets: Tensor, is_right: bool, wanted: str) -> None:
    """Raise ConfigError where torch would broadcast, or the loss of one class be always 0, instead of failing."""
    if not is_right:
        shapes = f"outputs {list(outputs.shape)} and targets {list(targets.shape)}"
        raise ConfigError(f"loss: {name} gets {shapes}; wanted: {wanted}")
