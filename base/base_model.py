"""The model that yours subclasses, and what is done to any model before it is trained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from checkpoint.file import load_checkpoint
from checkpoint.parts import eval_weights, load_fitting_weights
from distributed.fsdp import shard
from parse_config import ConfigParser
from speed import accelerate
from utils.weights import load_weights


class BaseModel(nn.Module, ABC):
    """An nn.Module that can learn the scale of its data and prints its size."""

    @abstractmethod
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the outputs that the criterion and the metrics take."""

    def adapt(self, data_loader: Any) -> None:
        """Take what the model must know of the training split, such as the features' means, into buffers.

        Called once for a new model, before the first step. Buffers are part of the state dict, so a checkpoint takes
        raw data whatever loaded it. Raises ConfigError where data and model do not fit. Does nothing by default.
        """

    def param_groups(self) -> list[Any]:
        """Return what the optimizer trains: parameters, or torch's groups of them with options of their own."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def num_parameters(self) -> int:
        """Number of trainable parameters."""
        return sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)

    def __str__(self) -> str:
        return f"{super().__str__()}\nTrainable parameters: {self.num_parameters():,}"


def param_groups(model: nn.Module) -> list[Any]:
    """Return what an optimizer of `model` trains: what a BaseModel says, or every parameter that requires gradients."""
    groups = model.param_groups() if isinstance(model, BaseModel) else BaseModel.param_groups(model)  # type: ignore[arg-type]
    # Lists, as the groups are gone through more than once, and `parameters()` can be only once.
    for group in (group for group in groups if isinstance(group, dict)):
        params = group["params"]
        group["params"] = [params] if isinstance(params, torch.Tensor) else list(params)
    return groups


def prepare_model(
    model: nn.Module, data_loader: DataLoader[Any], config: ConfigParser, device: torch.device
) -> nn.Module:
    """Adapt a new model to its data, give it the weights that the run begins with, and put it on the device.

    Raises ConfigError, and CheckpointError where the weights do not fit.
    """
    if isinstance(model, BaseModel) and not config.resume:
        model.adapt(data_loader)
    take_weights(model, config)
    model = model.to(device)
    accelerate(model, config.section("trainer"))
    shard(model, config.section("trainer"))
    return model


def take_weights(model: nn.Module, config: ConfigParser) -> None:
    """Load the weights that a new run begins with, once, where -c and -r name them. Raises CheckpointError."""
    if config.init_from and not config.has_taken_weights:
        config.has_taken_weights = True
        weights, where = eval_weights(load_checkpoint(config.init_from)), str(config.init_from)
        if config.section("trainer").init_weights == "fitting":
            config.get_logger("train").info(load_fitting_weights(model, weights, where))
        else:
            load_weights(model, weights, where)
