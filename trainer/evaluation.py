"""Measuring a model on data that it is not trained on: validation and test alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from base import Microbatch
from speed import input_format, prefetch
from trainer.batch import batch_weight, run_batch
from utils import MetricTracker


@torch.no_grad()
def evaluate(
    model: nn.Module,
    criterion: Callable[..., torch.Tensor],
    microbatches: Iterable[Microbatch],
    metrics: MetricTracker,
    device: torch.device,
    observe: Callable[[Any, Any, Any], None] | None = None,
) -> dict[str, float]:
    """Return the loss and metrics of `model`, in eval mode, over all samples of `microbatches` (see base.counted).

    `metrics` tracks "loss" and the metrics. Means are weighted by their counts, so the batch size makes no
    difference; a mean over nothing is NaN. `observe` gets each batch, its outputs and targets.
    Leaves the model in eval mode.
    """
    model.eval()
    metrics.reset()
    for batch, num_samples in prefetch(microbatches, device, input_format(model)):
        loss, outputs, targets, num_counted = run_batch(model, criterion, batch)
        metrics.update("loss", loss, n=batch_weight(criterion, batch, num_samples) if num_samples else 0)
        metrics.update_metrics(outputs, targets, n=num_samples if num_counted is None else num_counted)
        if observe is not None and num_samples:
            observe(batch, outputs, targets)
    return metrics.result()
