"""An exponential moving average of the weights, which often generalises better than the weights themselves."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from utils.errors import CheckpointError
from utils.load_parts import load_weights


class Ema:
    """torch's AveragedModel with `ema = decay * ema + (1 - decay) * weight`; buffers are the model's own.

    Polyak and Juditsky 1992, "Acceleration of stochastic approximation by averaging". Without a decay it does nothing.
    """

    def __init__(self, model: nn.Module, decay: float | None) -> None:
        """Average the weights of `model`, from its first update on."""
        self.model = model
        average = get_ema_multi_avg_fn(decay) if decay is not None else None
        self.averaged = AveragedModel(model, multi_avg_fn=average) if average else None

    @property
    def best_model(self) -> nn.Module:
        """The model to validate and to test: the average, or without a decay the model itself."""
        return self.averaged.module if self.averaged else self.model

    def update(self) -> None:
        """Take in the weights after an optimizer step."""
        if self.averaged:
            self.averaged.update_parameters(self.model)

    def state_dict(self) -> dict[str, Any]:
        """Return the averaged weights by the model's own names, and the number of updates; {} without a decay."""
        if self.averaged is None:
            return {}
        return {"num_updates": self.averaged.n_averaged, "model": self.averaged.module.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned. Raises CheckpointError where it does not fit."""
        if self.averaged is not None:
            load_weights(self.averaged.module, state["model"], "ema")
            self.averaged.n_averaged.copy_(state["num_updates"])


def best_weights(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return the weights of a checkpoint to evaluate: the average where there is one, else the model's.

    Raises CheckpointError where there are none.
    """
    ema = checkpoint.get("ema")
    weights = ema.get("model") if isinstance(ema, dict) and ema else checkpoint.get("model")
    if not isinstance(weights, dict):
        raise CheckpointError("a checkpoint without weights")
    return weights
