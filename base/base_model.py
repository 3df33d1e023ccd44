"""The model that yours subclasses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import nn

from base.base_data_loader import BaseDataLoader


class BaseModel(nn.Module, ABC):
    """An nn.Module that can learn the scale of its data and tells its size when printed."""

    @abstractmethod
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the outputs that the criterion and the metrics take."""

    def adapt(self, data_loader: BaseDataLoader) -> None:
        """Take what the model must know of the training split, such as the features' means, into buffers.

        Called once for a new model, before the first step. Buffers are part of the state dict, so a checkpoint takes
        raw data whatever loaded it. Raises ConfigError where data and model do not fit. Does nothing by default.
        """

    def num_parameters(self) -> int:
        """Number of trainable parameters."""
        return sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)

    def __str__(self) -> str:
        return f"{super().__str__()}\nTrainable parameters: {self.num_parameters():,}"
