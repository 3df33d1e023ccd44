"""torchmetrics' metrics to the last digits: sums in float64, and of differences from a centre where sums would cancel.

With float32 sums of squares R2Score gives 1.98 for 0.796 at targets near 2,000; with float64 it is off by 1e-4 at 1e6.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from utils.device import to_device
from utils.nested import map_tensors, tensors_of

CENTRED = {
    *("R2Score", "RelativeSquaredError", "ExplainedVariance", "PearsonCorrCoef", "ConcordanceCorrCoef"),
    "NormalizedRootMeanSquaredError",
}
"""Metrics that stay the same when outputs and targets are shifted and scaled alike, made of sums that do not."""
DEPEND_ON_ZERO = ("mean", "l2")  # normalizations of the last one that do not stay the same
SCALE = 2.0**20  # exact; R2Score takes sums of squares below 1e-4 for 0
UNCENTRED = {"centre": torch.zeros(()), "scale": torch.ones(())}
"""The states of a metric before its first batch, and those of a checkpoint of an earlier version, which has neither."""


def make_exact(metric: Any, dtype: torch.dtype) -> None:
    """Let `metric`, a fresh one of torchmetrics, add up in `dtype`; give it a centre where it needs one.

    Centre and scale are states like the others, saved, restored and reset with them, and theirs are relative to these:
    code that merges the states of several processes must first bring them to one centre.
    """
    if type(metric).__module__.startswith("torchmetrics.") and not list(metric.modules())[1:]:
        metric.to(dtype)  # floating states alone
    metric.sync_on_compute = False  # several processes have merged every update before (see utils/metric_tracker.py)
    if _is_centred(metric):
        for name, default in UNCENTRED.items():
            metric.add_state(name, default.to(metric.device, dtype), dist_reduce_fx=None)


def update_exactly(metric: Any, outputs: Any, targets: Any, dtype: torch.dtype) -> None:
    """Add a batch to a metric that went through `make_exact`; the mean target of its first batch becomes the centre."""
    if _regression_classes(metric):
        outputs, targets = map_tensors(lambda tensor: tensor.to(dtype), (outputs, targets))
    if _is_centred(metric):
        if not metric.update_called:
            metric.centre, metric.scale = targets.mean(dim=0), torch.full_like(metric.scale, SCALE)
        outputs, targets = ((values - metric.centre) * metric.scale for values in (outputs, targets))
    metric.update(outputs, targets)


def is_additive(metric: Any) -> bool:
    """Whether a state after two updates is the sum, or the list, of those after each: then states can be merged."""
    from torchmetrics.utilities.data import dim_zero_cat, dim_zero_sum  # here, as not every run has such metrics

    kinds = set(getattr(metric, "_reductions", {None: None}).values())
    return kinds <= {dim_zero_sum, dim_zero_cat} and bool(kinds) and not _is_centred(metric)


def state_of(metric: Any, outputs: Any, targets: Any, dtype: torch.dtype) -> dict[str, Any]:
    """Return what a batch adds to the states of `metric`, which is reset before."""
    metric.reset()
    update_exactly(metric, outputs, targets, dtype)
    return {name: list(value) if isinstance(value, list) else value for name, value in metric.metric_state.items()}


def add_state(metric: Any, state: dict[str, Any]) -> None:
    """Add to the states of `metric` what `state_of` returned, of this or another process."""
    for name, value in state.items():
        setattr(metric, name, getattr(metric, name) + to_device(value, metric.device))
    metric._update_count += 1
    metric._computed = None  # the cached result of before


def _is_centred(metric: Any) -> bool:
    is_invariant = getattr(metric, "normalization", None) not in DEPEND_ON_ZERO
    return is_invariant and not CENTRED.isdisjoint(_regression_classes(metric))


def _regression_classes(metric: Any) -> list[str]:
    """Return the names of the classes of torchmetrics.regression that `metric` is of."""
    bases = type(metric).__mro__
    return [base.__name__ for base in bases if base.__module__.startswith("torchmetrics.regression.")]


def exact_values(
    functions: dict[str, Callable[..., Any]], outputs: Any, targets: Any, dtype: torch.dtype
) -> Iterator[tuple[str, Any]]:
    """Yield what each function gives for a batch, by its name; where targets are floating, from tensors of `dtype`."""
    is_regression = bool(functions) and any(tensor.is_floating_point() for tensor in tensors_of(targets))
    given = exact = (outputs, targets)
    if is_regression:
        exact = map_tensors(lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor, given)
    for name, function in functions.items():
        try:
            value = function(*exact)
        except RuntimeError:
            if not is_regression:
                raise
            value = function(*given)  # one that has float32 weights of its own
        yield name, value
