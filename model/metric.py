"""Metrics: functions of (outputs, targets) that return the mean over the batch. torchmetrics' need no entry here."""

from __future__ import annotations

from torch import Tensor

from utils.annotations import PositiveInt


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Share of samples whose highest of the class scores (N, C) is that of their class (N,)."""
    return (outputs.argmax(dim=1) == targets).float().mean()


def top_k_acc(outputs: Tensor, targets: Tensor, k: PositiveInt = 3) -> Tensor:
    """Share of samples whose class (N,) is among the k highest of the class scores (N, C)."""
    top_k = outputs.topk(k, dim=1).indices  # (N, k)
    return (top_k == targets.unsqueeze(1)).any(dim=1).float().mean()
