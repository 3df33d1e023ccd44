"""How the processes of a run share its steps: alone, as torch's DDP does, or with the same bits by any number of them.

A strategy has one method for each place of a step where processes meet; with one process each returns what it is
given. So the step has no branch for several (see `Trainer._train_step`).
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from distributed.collective import gather, gather_segments, start_gathering
from distributed.launch import is_main, rank, world_size
from distributed.metrics import SharedMetricTracker
from utils.metric_tracker import MetricTracker
from utils.position import Position

CATCH_UP_EVERY = 32  # steps, or rounds of validation, whose metrics are merged at once

Weight = float | Tensor
Total = Callable[[], Weight]
Pair = tuple[Any, Weight]
"""A microbatch, (batch, number of samples), and the weight of its loss."""


class Alone:
    """One process. The other strategies are subclasses that override what several do otherwise."""

    num_shards = 1
    own_shards: Sequence[int] = (0,)
    """Into how many slices each batch is cut, and which of them this process computes."""
    fixes_world_size = True
    """Whether the number of processes changes the bits, so that a run must resume with as many."""

    def __init__(self, options: Any, device: torch.device, seed: int) -> None:
        """`options` are those of the `trainer` section."""
        self.options = options
        self.device = device
        self.seed = seed
        self.modules: list[nn.Module] = []
        self.parameters: list[nn.Parameter] = []

    @property
    def saves_shards(self) -> bool:
        """Whether each process writes its own part of a checkpoint."""
        return False

    def check(self) -> None:
        """Raise ConfigError where options do not go together with several processes."""

    def check_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """Raise ConfigError where `optimizer` does not work on weights as this strategy holds them."""

    def attach(self, modules: list[nn.Module], parameters: list[nn.Parameter], position: Position) -> None:
        """Take what is trained: `parameters`, all in `modules`, on the device; and where the run is from now on."""
        self.modules, self.parameters, self.position = modules, parameters, position

    def train_too(self, parameters: list[nn.Parameter]) -> None:
        """Take more of what is trained, in the modules of `attach`: weights that were frozen until now."""
        self.parameters = [*self.parameters, *parameters]

    def begin_step(self, microbatches: Sequence[Any], weights: list[Weight]) -> tuple[list[Weight], Total]:
        """Return the weights of this process's losses, and a function that returns what to divide them by.

        That is their sum over all processes, which they exchange in the meantime: call it after a forward pass.
        """
        total = sum(weights)
        return weights, lambda: total

    def passes(self, microbatches: Sequence[Any], weights: list[Weight]) -> Iterator[Pair]:
        """Yield what this process computes, microbatch by microbatch, with its weight."""
        yield from zip(microbatches, weights)

    def end_step(self, losses: list[Tensor]) -> Tensor:
        """Return the sum of `losses`, scalars; from here on gradients and buffers are those of all processes."""
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum()

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean over processes of what `end_step` and the like gave each of them."""
        return values

    def sum(self, number: int) -> int:
        """Return the sum of `number` over processes."""
        return number

    def full(self, state: Any) -> Any:
        """Return the state of a part as one process has it; only the first process needs it, but all call this."""
        return state

    def localized(self, part: Any, state: Any) -> Any:
        """Return `state`, what `full` returned or a stranger wrote, as `part` of this process loads it."""
        return state

    def agreed_signal(self, received: signal.Signals | None) -> signal.Signals | None:
        """Return the signal that all processes stop for here; `received` is what came to this one."""
        return received

    def agreed_save(self, is_due: bool) -> bool:
        """Whether all processes save here; `is_due` is what this one's clock says."""
        return is_due

    def meet(self) -> None:
        """Exchange what the processes want where there is no step that would: between batches of validation."""

    def tracker(self, *keys: str, **kwargs: Any) -> MetricTracker:
        """Return a MetricTracker of the samples of all processes."""
        return MetricTracker(*keys, **kwargs)


class Several(Alone):
    """What strategies of several processes have in common: deciding together, one step late, over the CPU."""

    def __init__(self, options: Any, device: torch.device, seed: int) -> None:
        super().__init__(options, device, seed)
        self._trackers: list[SharedMetricTracker] = []
        self._wanted = [0.0, 0.0]  # the signal's number, whether a save is due
        self._agreed = [0.0, 0.0]
        self._num_meetings = 0
        self._num_updates = 0
        if world_size() > 1:  # one process may compute the slices of several
            set_timeout = getattr(dist, "set_timeout", dist.distributed_c10d._set_pg_timeout)  # of earlier versions
            set_timeout(timedelta(seconds=options.process_timeout_s))

    def agreed_signal(self, received: signal.Signals | None) -> signal.Signals | None:
        """Return the signal that some process brought to the last meeting; `received` goes to the next."""
        self._wanted[0] = float(received or 0)
        return signal.Signals(int(self._agreed[0])) if self._agreed[0] else None

    def agreed_save(self, is_due: bool) -> bool:
        """Whether the first process's clock said so in the last meeting."""
        is_agreed, self._agreed[1] = bool(self._agreed[1]), 0.0  # it is saved once
        self._wanted[1] = float(is_due and is_main() and not is_agreed)
        return is_agreed

    def meet(self) -> None:
        """Exchange what the processes want."""
        self._start_exchange([])()

    def sum(self, number: int) -> int:
        """Return the sum of `number` over processes."""
        return sum(gather(number))

    @staticmethod
    def _own_weights(microbatches: Sequence[Any], weights: list[Weight]) -> list[Weight]:
        """Return the weights, 0 where a batch of other processes stands for a slice without samples.

        A tensor stays one: all processes must go the same way in `_sum_weights`.
        """
        return [weight if batch.num_samples else 0 * weight for batch, weight in zip(microbatches, weights)]

    def _start_exchange(self, numbers: list[float]) -> Callable[[], list[list[float]]]:
        """Begin to send `numbers`, as many each, and what this process wants.

        The function that is returned waits for the numbers of all, decides on what they want, lets metrics catch up,
        and returns the numbers.
        """
        gathered = start_gathering([*self._wanted, *numbers])

        def finish() -> list[list[float]]:
            rows = gathered()
            self._agreed = [max(row[0] for row in rows), max(row[1] for row in rows)]
            self._num_meetings += 1
            if self._num_meetings % CATCH_UP_EVERY == 0:
                for tracker in self._trackers:
                    tracker.catch_up()
            return [row[2:] for row in rows]

        return finish

    def _sum_weights(self, weights: list[Weight]) -> Total:
        """Begin to send `weights`, as many each; return a function that waits for their sum over all processes.

        It may be called several times. On an accelerator, whose weights are tensors, the host waits for no device.
        """
        if not any(isinstance(weight, Tensor) for weight in weights):
            finish = self._start_exchange([float(weight) for weight in weights])
            return cache(lambda: sum(weight for row in finish() for weight in row))
        own = torch.stack([torch.as_tensor(weight, dtype=torch.float32, device=self.device) for weight in weights])
        total, finish = gather_segments(own).sum(), self._start_exchange([])
        return cache(lambda: total + len(finish()) * 0)

    def tracker(self, *keys: str, **kwargs: Any) -> MetricTracker:
        """Return a tracker that catches up with those of the other processes every now and then."""
        self._trackers.append(SharedMetricTracker(*keys, merger=self, **kwargs))
        return self._trackers[-1]

    def merge(self, updates: list[Any]) -> list[Any]:
        """Return the updates of metrics of all processes, by their place."""
        return sorted((update for part in gather(updates) for update in part), key=lambda update: update[0])

    def place(self) -> tuple[int, ...]:
        """Return where an update of a metric stands among those of all processes."""
        self._num_updates += 1
        return self._num_updates, rank()
