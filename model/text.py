"""A classifier of sequences of characters."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from base import BaseModel
from utils.annotations import PositiveInt


class CharGRU(BaseModel):
    """Characters are embedded, read by a GRU (Cho et al. 2014), and the state after the last of them is classified."""

    def __init__(
        self, num_chars: PositiveInt, num_classes: PositiveInt, embedding: PositiveInt = 32, hidden: PositiveInt = 64
    ) -> None:
        super().__init__()
        self.embed = nn.Embedding(num_chars, embedding, padding_idx=0)
        self.gru = nn.GRU(embedding, hidden, batch_first=True)
        self.classify = nn.Linear(hidden, num_classes)

    def forward(self, padded: Sequence[Tensor]) -> Tensor:
        """(characters (N, T) int64, lengths (N,), mask (N, T)) -> logits (N, num_classes)."""
        chars, lengths, _ = padded
        states, _ = self.gru(self.embed(chars))  # (N, T, hidden); padding after the end changes no earlier state
        last = (lengths - 1).view(-1, 1, 1).expand(-1, 1, states.shape[2])
        return self.classify(states.gather(1, last).squeeze(1))
