"""Finding the step at which training went to NaN or infinity, without waiting for the device at every step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from utils.position import Position


class Step(NamedTuple):
    """What is remembered of an optimizer step until it is looked at."""

    epoch: int
    step_in_epoch: int
    global_step: int
    lr: float
    loss: Tensor  # scalar, on the device
    grad_norm: Tensor  # scalar, on the device


class FiniteWatch:
    """Collects losses and gradient norms on the device, and looks at them all at once when asked."""

    def __init__(self, max_skipped_steps: int, mean: Callable[[Tensor], Tensor] | None = None) -> None:
        """Allow so many steps in a row with an infinite gradient: those that a loss scaler (fp16) skips.

        `mean` gives the mean over processes, where there are several.
        """
        self.max_skipped_steps = max_skipped_steps
        self.last_loss = self.last_grad_norm = math.nan  # of the last step that was looked at
        self._mean = mean
        self.steps: list[Step] = []
        self._num_skipped = 0

    def add(self, position: Position, lr: float, loss: Tensor, grad_norm: Tensor) -> None:
        """Remember the step that `position` is at; `loss` and `grad_norm` are scalars that stay on the device."""
        where = (position.epoch, position.step_in_epoch, position.global_step)
        self.steps.append(Step(*where, float(lr), loss, grad_norm))

    def state_dict(self) -> dict[str, int]:
        """Return how many steps in a row were skipped; complete after `first_bad`, which is called before each save."""
        return {"num_skipped": self._num_skipped}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Restore what `state_dict` returned."""
        self._num_skipped = int(state["num_skipped"])

    def first_bad(self) -> tuple[Step, str] | None:
        """Return the first step since the last call that must not be trained on, and why. Waits for the device."""
        steps, self.steps = self.steps, []
        if not steps:
            return None
        device = steps[0].loss.device  # the norm of sharded weights that stay on the CPU is there
        on_device = torch.stack([value.float().to(device) for step in steps for value in (step.loss, step.grad_norm)])
        values = (self._mean(on_device) if self._mean else on_device).tolist()
        self.last_loss, self.last_grad_norm = values[-2:]
        for step, loss, grad_norm in zip(steps, values[0::2], values[1::2]):
            if not math.isfinite(loss):
                return step, f"the loss is {loss}"
            self._num_skipped = 0 if math.isfinite(grad_norm) else self._num_skipped + 1
            if self._num_skipped > self.max_skipped_steps:
                return step, f"the gradient norm is {grad_norm}"
        return None
