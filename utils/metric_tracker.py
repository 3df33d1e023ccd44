"""Metrics of an epoch: exact over its samples, kept on the device until they are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from utils.device import to_device
from utils.errors import ConfigError
from utils.exact_metrics import UNCENTRED, exact_values, make_exact, update_exactly
from utils.nested import map_tensors, tensors_of

MAX_PENDING = 64  # updates
MAX_PENDING_BYTES = 4 << 20
MAX_DIMS, MAX_ELEMENTS = 3, 1_000_000  # of a function's value: a crafted one may claim to be of any size

Metric = Callable[[Any, Any], Any]
"""`(outputs, targets) -> mean over the batch`, or a torchmetrics Metric; either has a `__name__`."""


class MetricTracker:
    """Sample-weighted means of batch values, and the results of torchmetrics' metrics.

    A metric that is a vector gives a scalar for each element, `NAME/0`, `NAME/1` and so on; a dict gives
    `NAME/KEY`; one of more dimensions, such as a confusion matrix, is put into `matrices` by `result`.

    Only `avg` and `result` wait for the device. Sums and counts are tensors that change in place, so that a CUDA graph
    can hold an update; they are float64 where the device has it (see utils/exact_metrics.py too). On a CPU, updates are
    kept and made some at a time, in their order: between two large convolutions the few small operations of a metric
    would take four times as long. What is given to an update must not change afterwards.
    """

    def __init__(
        self,
        *keys: str,
        writer: Any = None,
        metric_ftns: Sequence[Metric] = (),
        device: torch.device | None = None,
    ) -> None:
        """Track `keys`, fed by `update`, and `metric_ftns`, fed by `update_metrics`; copies torchmetrics objects.

        With a `writer`, a TensorboardWriter, each `update` adds a point to the curve of its key as well.
        """
        device = device or torch.device("cpu")
        dtype = self._dtype = torch.float32 if device.type == "mps" else torch.float64
        self.writer = writer
        self._functions = {ftn.__name__: ftn for ftn in metric_ftns if not isinstance(ftn, nn.Module)}
        self._modules: dict[str, Any] = {
            str(ftn.__name__): deepcopy(ftn).to(device) for ftn in metric_ftns if isinstance(ftn, nn.Module)
        }
        for module in self._modules.values():
            make_exact(module, dtype)
        self.keys = [*keys, *(str(ftn.__name__) for ftn in metric_ftns)]
        # Its curves are drawn here, point by point, and by nobody else.
        drawn: set[str] = getattr(writer, "tags", set())
        drawn.update(f"{key}/{mode}" for key in keys for mode in ("train", "valid"))
        means = [key for key in self.keys if key not in self._modules]
        self._totals = {key: torch.zeros((), dtype=dtype, device=device) for key in means}
        self._counts = {key: torch.zeros((), dtype=dtype, device=device) for key in means}
        self.matrices: dict[str, Tensor] = {}
        self._is_restored = False  # in the middle of an epoch, whose first `reset` must not forget what was restored
        self._is_open = False  # from an epoch's first update until its result is read
        self._max_pending = MAX_PENDING if device.type == "cpu" else 0
        self._pending: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self._pending_bytes = 0

    @property
    def has_modules(self) -> bool:
        """Whether some of the metrics are torchmetrics objects, which change on the host too."""
        return bool(self._modules)

    def reset(self) -> None:
        """Start an epoch. The first call after the middle of an epoch was restored continues that epoch instead."""
        if self._is_restored:
            self._is_restored = False
            return
        self.catch_up()
        for value in (*self._totals.values(), *self._counts.values()):
            value.zero_()
        for module in self._modules.values():
            module.reset()
        self._is_open = False

    def update(self, key: str, value: Tensor | float, n: float | Tensor = 1) -> None:
        """Add `value`, the mean over `n` samples, to the mean of `key`; where `n` is 0, whatever it is, nothing.

        Raises KeyError where `key` is not tracked.
        """
        if key not in self._totals:
            raise KeyError(key)
        if self.writer is not None:
            self.writer.add_scalar(key, value)
        self._later(self._add, key, value.detach() if isinstance(value, Tensor) else value, n)

    def update_metrics(self, outputs: Any, targets: Any, n: float | Tensor) -> None:
        """Add a batch of `n` samples to every metric; nothing where that is 0."""
        if not isinstance(n, Tensor) and n == 0:
            return
        outputs, targets = map_tensors(Tensor.detach, outputs), map_tensors(Tensor.detach, targets)
        self._pending_bytes += sum(tensor.untyped_storage().nbytes() for tensor in tensors_of((outputs, targets)))
        self._later(self._add_batch, outputs, targets, n)

    def _later(self, update: Callable[..., None], *args: Any) -> None:
        self._is_open = True
        self._pending.append((update, args))
        if len(self._pending) > self._max_pending or self._pending_bytes > MAX_PENDING_BYTES:
            self._make_pending()

    def catch_up(self) -> None:
        """Make all updates that are kept for later."""
        self._make_pending()

    @torch.no_grad()
    def _make_pending(self) -> None:
        pending, self._pending, self._pending_bytes = self._pending, [], 0
        for update, args in pending:
            update(*args)

    def _add(self, key: str, value: Tensor | float, n: float | Tensor) -> None:
        if isinstance(n, Tensor):  # the host does not wait to see whether it is 0
            n = n.to(self._dtype)
            value, factor = torch.where(n > 0, value * n, 0.0), 1.0
        elif n == 0:  # a mean over nothing may be NaN
            return
        else:
            factor = n
        if isinstance(value, Tensor):
            if value.shape != self._totals[key].shape:  # a vector: the first time that this is known
                self._totals[key] = self._totals[key].expand(value.shape).clone()
            self._totals[key].add_(value, alpha=factor)
        else:
            self._totals[key].add_(value * factor)
        self._counts[key].add_(n)

    def _add_batch(self, outputs: Any, targets: Any, n: float | Tensor) -> None:
        for key, value in exact_values(self._functions, outputs, targets, self._dtype):
            self._add(key, value, n)
        for module in self._modules.values():
            update_exactly(module, outputs, targets, self._dtype)

    def avg(self, key: str) -> float:
        """Return the mean of `key` so far; NaN before the first sample. Waits for the device."""
        self.catch_up()
        return float((self._totals[key] / self._counts[key]).item())

    def result(self) -> dict[str, float]:
        """Return every scalar by its name, in the order they were named; leave matrices in `matrices`.

        Waits for the device. Raises ConfigError where a metric gives neither numbers nor tensors.
        """
        self.catch_up()
        self._is_open = False
        self.matrices = {}
        return {name: value for key in self.keys for name, value in self._scalars(key, self._value(key))}

    def _value(self, key: str) -> Any:
        return self._modules[key].compute() if key in self._modules else self._totals[key] / self._counts[key]

    def _scalars(self, name: str, value: Any) -> Iterator[tuple[str, float]]:
        """Yield the scalars that a metric's value is made of, each by its name; put a matrix aside."""
        if isinstance(value, dict):
            for key, item in value.items():
                yield from self._scalars(f"{name}/{key}", item)
        elif isinstance(value, Tensor) and value.ndim > 1 and value.numel() > 1:
            self.matrices[name] = value.detach().cpu()
        elif isinstance(value, Tensor) and value.numel() > 1:
            for index, item in enumerate(value.tolist()):
                yield f"{name}/{index}", item
        elif isinstance(value, Tensor | int | float):
            yield name, float(value)
        else:
            raise ConfigError(f"metrics: {name} gives {str(value)[:60]!r}, not a number that can be logged")

    def state_dict(self) -> dict[str, Any]:
        """Return the accumulators as plain data, so that an epoch's means survive a stop in the middle of it."""
        self.catch_up()
        return {
            "totals": self._totals,
            "counts": self._counts,
            "modules": {
                key: {"state": module.metric_state, "update_count": module._update_count}
                for key, module in self._modules.items()
            },
            "is_open": self._is_open,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned. Raises ValueError where a mean is no number, or of a metric no vector."""
        self.catch_up()
        for key, count in self._counts.items():
            total = state["totals"][key]
            if total.ndim > (MAX_DIMS if key in self._functions else 0) or total.numel() > MAX_ELEMENTS:
                raise ValueError(f"{key} is {list(total.shape)}, not a value of this run")
            self._totals[key] = total.to(self._totals[key])
            count.copy_(state["counts"][key])
        for key, saved in state["modules"].items():
            # torchmetrics' own state dict is empty by default and never has the update count.
            module = self._modules[key]
            values = UNCENTRED | saved["state"]
            for name, fresh in module.metric_state.items():
                value = to_device(values[name], module.device)
                if isinstance(fresh, Tensor):
                    value = value.to(torch.promote_types(value.dtype, fresh.dtype))  # earlier versions had float32
                setattr(module, name, value)
            module._update_count = saved["update_count"]
            module._computed = None  # the cached result of before
        self._is_open = self._is_restored = bool(state["is_open"])
