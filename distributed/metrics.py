"""Metrics over the samples of all processes: each process has the same values, whoever computed which batch."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any, Protocol

import torch
from torch import Tensor

from utils.device import to_device
from utils.exact_metrics import add_state, exact_values, is_additive, state_of, update_exactly
from utils.metric_tracker import MetricTracker


class Merger(Protocol):
    """What brings the updates of all processes together: a strategy of several processes."""

    def place(self) -> tuple[int, ...]:
        """Return where the update that comes stands among those of all processes."""

    def merge(self, updates: list[Any]) -> list[Any]:
        """Return the updates of all processes, tuples that begin with their place, in that order."""


class SharedMetricTracker(MetricTracker):
    """Keeps what each batch adds to a metric, and makes the updates of all processes in their one order.

    Sums are thus added up in the same order by any number of processes. `catch_up` exchanges what is kept: all
    processes must call it at the same time, as `avg`, `result`, `reset` and `state_dict` do.
    """

    def __init__(self, *keys: str, merger: Merger, **kwargs: Any) -> None:
        """See MetricTracker."""
        super().__init__(*keys, **kwargs)
        self._merger = merger
        self._place: tuple[int, ...] = ()
        self._unmerged: list[tuple[tuple[int, ...], str, Any, Any]] = []  # place, key, what it adds, number of samples
        self._scratch = {key: deepcopy(module) for key, module in self._modules.items() if is_additive(module)}

    def update(self, key: str, value: Tensor | float, n: float | Tensor = 1) -> None:
        """Add `value`, the mean over `n` samples, to the mean of `key`."""
        self._place = self._merger.place()  # also where `n` is 0, as another process has samples there
        super().update(key, value, n)

    def update_metrics(self, outputs: Any, targets: Any, n: float | Tensor) -> None:
        """Add a batch of `n` samples to every metric."""
        self._place = self._merger.place()
        super().update_metrics(outputs, targets, n)

    def _later(self, update: Callable[..., None], *args: Any) -> None:
        super()._later(self._keep_mean if update == self._add else self._keep_batch, self._place, *args)

    def _keep_mean(self, place: tuple[int, ...], key: str, value: Any, n: Any) -> None:
        self._unmerged.append((place, key, value, n))

    def _keep_batch(self, place: tuple[int, ...], outputs: Any, targets: Any, n: Any) -> None:
        for key, value in exact_values(self._functions, outputs, targets, self._dtype):
            self._keep_mean(place, key, value, n)
        for key in self._modules:
            metric = self._scratch.get(key)
            added = (outputs, targets) if metric is None else state_of(metric, outputs, targets, self._dtype)
            self._keep_mean(place, key, added, n)

    @torch.no_grad()
    def catch_up(self) -> None:
        """Make the updates of all processes."""
        super().catch_up()
        unmerged, self._unmerged = to_device(self._unmerged, torch.device("cpu")), []
        for _, key, added, n in self._merger.merge(unmerged):
            if key in self._totals:
                self._add(key, to_device(added, self._counts[key].device), to_device(n, self._counts[key].device))
            elif key in self._scratch:
                add_state(self._modules[key], added)
            else:
                outputs, targets = to_device(added, self._modules[key].device)
                update_exactly(self._modules[key], outputs, targets, self._dtype)
