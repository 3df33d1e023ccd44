"""Losses: functions of (outputs, targets) that return the mean over the batch. Those of torch.nn need no entry here.

Arguments named `ignore_index` and `weight` mean what they do in torch, and batches are averaged accordingly. Shapes
that torch would broadcast, and losses of one class, are refused before a run (preflight/shape_watch.py).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.annotations import Probability


def nll_loss(outputs: Tensor, targets: Tensor, ignore_index: int = -100) -> Tensor:
    """Negative log-likelihood of log-probabilities (N, C) and class indices (N,)."""
    return F.nll_loss(outputs, targets, ignore_index=ignore_index)


def cross_entropy(
    outputs: Tensor, targets: Tensor, label_smoothing: Probability = 0.0, ignore_index: int = -100
) -> Tensor:
    """Cross entropy of logits (N, C) and class indices (N,)."""
    return F.cross_entropy(outputs, targets, label_smoothing=label_smoothing, ignore_index=ignore_index)


def mse_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error of two tensors of the same shape."""
    return F.mse_loss(outputs, targets)


def log_mse_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error of the logarithms of two tensors of the same shape, both above 0: relative errors."""
    return F.mse_loss(outputs.clamp_min(torch.finfo(outputs.dtype).tiny).log(), targets.log())
