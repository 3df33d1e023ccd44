"""Metrics of an epoch: exact over its samples, kept on the device until they are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from utils.device import tensors_of
from utils.errors import ConfigError

MAX_PENDING = 64  # updates
MAX_PENDING_BYTES = 4 << 20

Metric = Callable[[Any, Any], Any]
"""`(outputs, targets) -> mean over the batch`, or a torchmetrics Metric; either has a `__name__`."""


class MetricTracker:
    """Sample-weighted means of batch values, and the results of torchmetrics' metrics.

    Nothing here waits for the device but `avg` and `result`, and sums and counts are tensors that change in place, so
    that a CUDA graph can hold an update. Sums are float64 where the device has it, so that the mean does not depend on
    how samples were batched beyond the rounding of the batch values themselves.

    On a CPU, updates are kept and made some at a time, in their order: between two large convolutions the few small
    operations of a metric find their code and data no longer in the cache, and take four times as long. What is given
    to an update must not change afterwards.
    """

    def __init__(self, *keys: str, metric_ftns: Sequence[Metric] = (), device: torch.device | None = None) -> None:
        """Track `keys`, fed by `update`, and `metric_ftns`, fed by `update_metrics`. Copies torchmetrics objects."""
        device = device or torch.device("cpu")
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self._functions = {ftn.__name__: ftn for ftn in metric_ftns if not isinstance(ftn, nn.Module)}
        self._modules: dict[str, Any] = {
            str(ftn.__name__): deepcopy(ftn).to(device) for ftn in metric_ftns if isinstance(ftn, nn.Module)
        }
        self.keys = [*keys, *(str(ftn.__name__) for ftn in metric_ftns)]
        means = [key for key in self.keys if key not in self._modules]
        self._totals = {key: torch.zeros((), dtype=dtype, device=device) for key in means}
        self._counts = {key: torch.zeros((), dtype=torch.int64, device=device) for key in means}
        self._max_pending = MAX_PENDING if device.type == "cpu" else 0
        self._pending: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self._pending_bytes = 0

    @property
    def has_modules(self) -> bool:
        """Whether some of the metrics are torchmetrics objects, which change on the host too."""
        return bool(self._modules)

    def reset(self) -> None:
        """Start a new epoch."""
        self._catch_up()
        for value in (*self._totals.values(), *self._counts.values()):
            value.zero_()
        for module in self._modules.values():
            module.reset()

    def update(self, key: str, value: Tensor | float, n: int = 1) -> None:
        """Add `value`, the mean over `n` samples, to the mean of `key`. Raises KeyError where that is not tracked."""
        if key not in self._totals:
            raise KeyError(key)
        self._later(self._add, key, value.detach() if isinstance(value, Tensor) else value, n)

    def update_metrics(self, outputs: Any, targets: Any) -> None:
        """Add a batch to every metric."""
        self._pending_bytes += sum(tensor.untyped_storage().nbytes() for tensor in tensors_of((outputs, targets)))
        self._later(self._add_batch, outputs, targets)

    def _later(self, update: Callable[..., None], *args: Any) -> None:
        self._pending.append((update, args))
        if len(self._pending) > self._max_pending or self._pending_bytes > MAX_PENDING_BYTES:
            self._catch_up()

    @torch.no_grad()
    def _catch_up(self) -> None:
        pending, self._pending, self._pending_bytes = self._pending, [], 0
        for update, args in pending:
            update(*args)

    def _add(self, key: str, value: Tensor | float, n: int) -> None:
        if isinstance(value, Tensor):
            self._totals[key].add_(value, alpha=n)
        else:
            self._totals[key].add_(value * n)
        self._counts[key].add_(n)

    def _add_batch(self, outputs: Any, targets: Any) -> None:
        for key, function in self._functions.items():
            self._add(key, function(outputs, targets), n=len(targets))
        for module in self._modules.values():
            module.update(outputs, targets)

    def avg(self, key: str) -> float:
        """Return the mean of `key` so far; NaN before the first sample. Waits for the device."""
        self._catch_up()
        return (self._totals[key] / self._counts[key]).item()

    def result(self) -> dict[str, float]:
        """Return every value by its key, in the order they were named. Waits for the device."""
        self._catch_up()
        return {key: self._computed(key) if key in self._modules else self.avg(key) for key in self.keys}

    def _computed(self, key: str) -> float:
        value = self._modules[key].compute()
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise ConfigError(f"metrics: {key} gives {str(value)[:60]!r}, not a number that can be logged")
        return value.item()

    def state_dict(self) -> dict[str, Any]:
        """Return the accumulators as plain data, so that an epoch's means survive a stop in the middle of it."""
        self._catch_up()
        return {
            "totals": self._totals,
            "counts": self._counts,
            "modules": {
                key: {"state": module.metric_state, "update_count": module._update_count}
                for key, module in self._modules.items()
            },
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._catch_up()
        for key, total in state["totals"].items():
            self._totals[key].copy_(total)
            self._counts[key].copy_(state["counts"][key])
        for key, saved in state["modules"].items():
            # torchmetrics' own state dict is empty by default and never has the update count.
            module = self._modules[key]
            for name in module.metric_state:
                setattr(module, name, _to(saved["state"][name], module.device))
            module._update_count = saved["update_count"]
            module._computed = None  # the cached result of before


def _to(value: Any, device: torch.device) -> Any:
    return [item.to(device) for item in value] if isinstance(value, list) else value.to(device)
