"""How a batch is made of samples (inputs, target): what a config names as `collate`. Yours to extend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import default_collate

Collate = Callable[[list[Any]], Any]
"""What a loader takes as `collate`: a function of this file, with all arguments but the samples."""


class Padded(NamedTuple):
    """Sequences of different lengths as one tensor, padded at the end."""

    values: Tensor  # (N, T, ...), T the longest of them
    lengths: Tensor  # (N,) int64
    mask: Tensor  # (N, T) bool: True where a value is, False in the padding


def stack(samples: Sequence[tuple[Any, Any]]) -> Any:
    """Return samples of one shape as torch's `default_collate` does: (inputs (N, ...), targets (N, ...))."""
    return default_collate(list(samples))


def pad(samples: Sequence[tuple[Tensor, Any]], value: float = 0.0) -> tuple[Padded, Tensor]:
    """Return inputs (T_i, ...) padded with `value` at the end, and targets (N, ...).

    The length of a batch is that of its longest sequence.
    """
    sequences = [inputs for inputs, _ in samples]
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    values = pad_sequence(sequences, batch_first=True, padding_value=value)
    mask = torch.arange(values.shape[1]) < lengths.unsqueeze(1)
    return Padded(values, lengths, mask), default_collate([target for _, target in samples])
