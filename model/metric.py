"""Metrics: functions of (outputs, targets) that return the batch mean. Those of torchmetrics need no entry here."""

from __future__ import annotations

from torch import Tensor

from utils import ConfigError
from utils.annotations import PositiveInt


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Share of samples whose highest class score (N, C) is that of their own class (N,)."""
    _check_shapes("accuracy", outputs, targets)
    return (outputs.argmax(dim=1) == targets).float().mean()


def top_k_acc(outputs: Tensor, targets: Tensor, k: PositiveInt = 3) -> Tensor:
    """Share of samples whose class (N,) is among the k highest of the class scores (N, C)."""
    _check_shapes("top_k_acc", outputs, targets)
    top_k = outputs.topk(k, dim=1).indices  # (N, k)
    return (top_k == targets.unsqueeze(1)).any(dim=1).float().mean()


def _check_shapes(name: str, outputs: Tensor, targets: Tensor) -> None:
    """Raise ConfigError unless these are scores (N, C) and classes (N,); a regression's would broadcast."""
    if outputs.ndim < 2 or outputs.shape[1] < 2 or targets.shape != outputs[:, 0].shape:
        shapes = f"outputs {list(outputs.shape)} and targets {list(targets.shape)}"
        raise ConfigError(f"metrics: {name} gets {shapes}; wanted: scores (N, C) of at least 2 classes, classes (N,)")
