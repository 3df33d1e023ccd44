"""Measuring a model on data it does not train on: validation and test are the same thing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from utils import MetricTracker
from utils.acceleration import input_format
from utils.device import prefetch


@torch.no_grad()
def evaluate(
    model: nn.Module,
    criterion: Callable[[Any, Any], torch.Tensor],
    batches: Iterable[Any],
    metrics: MetricTracker,
    device: torch.device,
) -> dict[str, float]:
    """Return the loss and metrics of `model`, in eval mode, over all samples of `batches` of (inputs, targets).

    `metrics` tracks "loss" and the metrics; means are weighted by samples, so the batch size makes no difference.
    Leaves the model in eval mode.
    """
    model.eval()
    metrics.reset()
    for inputs, targets in prefetch(batches, device, input_format(model)):
        outputs = model(inputs)
        metrics.update("loss", criterion(outputs, targets), n=len(targets))
        metrics.update_metrics(outputs, targets)
    return metrics.result()
