"""train.py with a model that has BatchNorm and dropout: all that may depend on a batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import slots
import train
from base import BaseModel
from parse_config import ConfigParser, Slot


class NormNet(BaseModel):
    """Two layers over flat images."""

    scale: Tensor

    def __init__(self, dropout: float = 0.2) -> None:
        super().__init__()
        self.hidden = nn.Linear(784, 16)
        self.norm = nn.BatchNorm1d(16)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(16, 10)
        self.register_buffer("scale", torch.tensor(0.1))  # a constant must stay the same to the bit

    def forward(self, images: Tensor) -> Tensor:
        """(N, 1, 28, 28) float -> log-probabilities (N, 10)."""
        hidden = self.drop(self.norm(self.hidden(images.flatten(1) * self.scale)).relu())
        return self.head(hidden).log_softmax(1)


def parse_args(argv: list[str]) -> ConfigParser:
    """Return the config, whose `arch` is of this file."""
    slots.SLOTS["arch"] = Slot(("norm_train",), base=nn.Module, required=True, has_state=True)
    return train.parse_args(argv)


main = train.main
