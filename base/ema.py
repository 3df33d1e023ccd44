"""An exponential moving average of the weights, which often generalises better than the weights themselves."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from distributed.fsdp import twin
from utils.weights import load_weights


class Ema:
    """`average = decay * average + (1 - decay) * weight` after each step; buffers are the model's own.

    Polyak and Juditsky 1992, "Acceleration of stochastic approximation by averaging". Without a decay it does nothing.
    torch's AveragedModel does the same, but counts updates on the host, which a CUDA graph does not replay.
    """

    def __init__(self, model: nn.Module, decay: float | None) -> None:
        """Average the weights of `model`; the first update takes them as they are."""
        self.model = model
        self.averaged = twin(model).requires_grad_(False) if decay is not None else None
        self.is_started = False
        self._average = get_ema_multi_avg_fn(decay) if decay is not None else None

    @property
    def eval_model(self) -> nn.Module:
        """The model to validate and to test: the average, or without a decay the model itself."""
        return self.averaged or self.model

    def update(self) -> None:
        """Take in the weights after an optimizer step."""
        if self.averaged is None or self._average is None:
            return
        averages, weights = list(self.averaged.parameters()), list(self.model.parameters())
        with torch.no_grad():
            if self.is_started:
                self._average(averages, weights, None)
            else:
                for parameter, weight in zip(averages, weights):
                    parameter.copy_(weight)
                self.is_started = True
            for average, buffer in zip(self.averaged.buffers(), self.model.buffers()):
                average.copy_(buffer)

    def state_dict(self) -> dict[str, Any]:
        """Return the averaged weights by the model's own names; {} without a decay."""
        if self.averaged is None:
            return {}
        return {"is_started": self.is_started, "model": self.averaged.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned. Raises CheckpointError where it does not fit."""
        if self.averaged is not None:
            load_weights(self.averaged, state["model"], "ema")
            self.is_started = bool(state["is_started"])
