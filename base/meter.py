"""What is measured of training steps beside loss and gradient: speed, waiting, memory, how far weights move."""

from __future__ import annotations

import mmap
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from base.groups import named_groups
from base.microbatch import Microbatch
from speed.levers import local_part
from utils.device import peak_memory

if TYPE_CHECKING:
    from base.base_trainer import BaseTrainer

MAX_WEIGHTS = 1 << 22  # that a copy is made of


class _Reading(NamedTuple):
    """Totals of an epoch so far."""

    seconds: float
    waited: float  # seconds in which the host waited for data
    num_samples: int


class StepMeter:
    """Reads the clock twice a step, and copies weights before a step that is logged; the rest happens when it logs."""

    def __init__(self, trainer: BaseTrainer, log_every_steps: int) -> None:
        self._trainer = trainer
        self._every = log_every_steps
        self._waited, self._num_samples = 0.0, 0
        self._epoch_start = self._last = self._read()
        self._before: list[Tensor] = []
        self._rates: dict[str, float] = {}  # before the schedule goes on

    def timed(self, steps: Iterable[list[Microbatch]]) -> Iterator[list[Microbatch]]:
        """Yield the steps of an epoch, from now on until the last is done."""
        self._waited, self._num_samples = 0.0, 0
        self._epoch_start = self._last = self._read()
        batches = iter(steps)
        while True:
            started = time.perf_counter()
            microbatches = next(batches, None)
            self._waited += time.perf_counter() - started
            if microbatches is None:
                return
            self._num_samples += sum(microbatch.num_samples for microbatch in microbatches)
            if (self._trainer.position.global_step + 1) % self._every == 0:
                self._before = [weights.clone() for weights in self._weights()]
                groups = named_groups(self._trainer.optimizer)
                self._rates = {f"lr/{name}": float(group["lr"]) for name, group in groups.items()}
            yield microbatches

    def step_values(self) -> dict[str, float]:
        """Return what there is to log of a step that was just done: learning rates, update, speed since the last.

        `update_ratio` is the norm of how far the step moved the weights over their norm; healthy is about 1e-3
        (Karpathy, "A Recipe for Training Neural Networks"). Of a model of more than 4 million weights, or of sharded
        ones, it is that of the first rows of each, or of this process's own. Waits for the device.
        """
        now, last = self._read(), self._last
        self._last = now
        values = dict(self._rates)
        if self._before:
            weights, before, self._before = list(self._weights()), self._before, []
            moved = [new - old for new, old in zip(weights, before)]
            norms = torch.stack([nn.utils.get_total_norm(moved), nn.utils.get_total_norm(before)]).tolist()
            values["update_ratio"] = norms[0] / norms[1] if norms[1] else 0.0
        strategy = self._trainer.strategy
        num_samples = (now.num_samples - last.num_samples) * strategy.num_shards // max(len(strategy.own_shards), 1)
        return values | _speed(now.seconds - last.seconds, now.waited - last.waited, num_samples)

    def epoch_values(self) -> dict[str, float]:
        """Return the speed of the epoch so far, and the memory that is used; {} before the first step.

        The device must be waited for before; all processes call this.
        """
        now, start = self._read(), self._epoch_start
        num_samples = self._trainer.strategy.sum(now.num_samples)
        if not num_samples:
            return {}
        values = _speed(now.seconds - start.seconds, now.waited, num_samples)
        values["perf/host_memory_gib"] = resident_memory() / 2**30
        if self._trainer.device.type == "cuda":
            values["perf/device_memory_gib"] = torch.cuda.max_memory_allocated(self._trainer.device) / 2**30
        return values

    def _read(self) -> _Reading:
        return _Reading(time.perf_counter(), self._waited, self._num_samples)

    def _weights(self) -> Iterator[Tensor]:
        """Yield the weights that are trained, or the first rows of each where a copy of all would take much memory."""
        groups = named_groups(self._trainer.optimizer)
        trained = [parameter for group in groups.values() for parameter in group["params"] if parameter.requires_grad]
        own = [local_part(weight.detach()) for weight in trained]
        share = min(MAX_WEIGHTS / max(sum(weight.numel() for weight in own), 1), 1.0)
        for weight in own:
            yield weight if share == 1 or weight.ndim == 0 else weight[: max(int(share * len(weight)), 1)]


def _speed(seconds: float, waited: float, num_samples: int) -> dict[str, float]:
    return {"perf/samples_per_sec": num_samples / seconds, "perf/data_wait": waited / seconds}


def resident_memory() -> int:
    """Return the bytes of memory that this process holds now; where only Linux says so, the most that it held."""
    try:
        num_pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return peak_memory(torch.device("cpu")) or 0
    return num_pages * mmap.PAGESIZE
