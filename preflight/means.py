"""Whether the values of an epoch depend on the batch size, tried on a few samples before training."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch

from preflight.trial import nothing_kept
from utils import MetricTracker

SIZES = (3, 5)
TOLERANCE = 1e-4  # relative; kernels for another size may round otherwise
HINT = "say in trainer/batch.py: batch_weight what it is a mean over"


def warn_of_wrong_means(trainer: Any, evaluate: Callable[..., dict[str, float]]) -> None:
    """Warn of each value that differs between a batch of 8 samples and two batches, of 3 and 5, of the same.

    `trainer` is a Trainer of trainer/trainer.py, `evaluate` that of trainer/evaluation.py.
    """
    (first, second), peek = SIZES, trainer.data_loader.peek

    def measured(*microbatches: Any) -> dict[str, float]:
        metrics = MetricTracker("loss", metric_ftns=trainer.metric_ftns, device=trainer.device)
        return evaluate(trainer.model, trainer.criterion, microbatches, metrics, trainer.device)

    try:
        with nothing_kept(trainer), torch.compiler.set_stance("force_eager"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            whole, again = (measured(peek(first + second)) for _ in range(2))
            parts = measured(peek(first), peek(second, start=first))
    except Exception:  # of what takes no batch as small; what takes none at all, check_batch has refused
        return
    for name, value in whole.items():
        part, is_random = parts.get(name, math.nan), again[name] != value  # NaN too
        if not is_random and not math.isclose(value, part, rel_tol=TOLERANCE, abs_tol=TOLERANCE**2):
            trainer.logger.warning(
                f"{name}: no mean over samples, so it depends on batch_size: {value:.4g} for {first + second} samples, "
                f"{part:.4g} for {first} and {second} of them{f'; {HINT}' if name == 'loss' else ''}"
            )
