"""From a table's matrix to what layers take: gaps are filled, numbers standardised, categories expanded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

MAX_DIM = 50


class TableEncoder(nn.Module):
    """(N, F) float32, as tables/row_encoder.py makes it, -> (N, out_features) float32, without gaps.

    Numbers, bools and parts of dates become standardised numbers; a category becomes one column per label, all zeros
    for any other label, or an embedding; an `indicator` adds a column that is 1 where the value was missing. All
    statistics are those of the training split: `columns` of the loader's `facts()["table"]`.
    """

    fill: Tensor
    mean: Tensor
    std: Tensor
    number_at: Tensor
    indicator_at: Tensor
    one_hot_at: Tensor
    one_hot_code: Tensor

    def __init__(self, columns: Sequence[Mapping[str, Any]]) -> None:
        super().__init__()
        placed = list(_placed(columns))
        numbers = [(at + i, column, i) for at, column in placed if not column["labels"] for i in range(_width(column))]
        one_hot = [(at, column) for at, column in placed if column["labels"] and column["encoding"] == "one_hot"]
        embedded = [(at, column) for at, column in placed if column["labels"] and column["encoding"] == "embedding"]
        codes = [(at, code + 1) for at, column in one_hot for code in range(len(column["labels"]))]

        # Saved in checkpoints.
        self.register_buffer("fill", torch.tensor([value for column in columns for value in column["fill"]]))
        self.register_buffer("mean", torch.tensor([column["mean"][i] for _, column, i in numbers]))
        self.register_buffer("std", torch.tensor([column["std"][i] for _, column, i in numbers]))
        self.embeddings = nn.ModuleList(_embedding(column) for _, column in embedded)
        # Positions in the matrix, which follow from the facts.
        places = {
            "number_at": [at for at, _, _ in numbers],
            "indicator_at": [at for at, column in placed if column["indicator"]],
            "one_hot_at": [at for at, _ in codes],
        }
        for name, place in places.items():
            self.register_buffer(name, torch.tensor(place, dtype=torch.int64), persistent=False)
        self.register_buffer("one_hot_code", torch.tensor([float(code) for _, code in codes]), persistent=False)
        self.embedded_at = [at for at, _ in embedded]
        self.out_features = sum(map(len, places.values())) + sum(e.embedding_dim for e in self.embeddings)  # type: ignore[misc]

    def forward(self, rows: Tensor) -> Tensor:
        """(N, F) float32, NaN where a value is missing -> (N, out_features)."""
        is_missing = rows.isnan()
        filled = torch.where(is_missing, self.fill, rows)
        parts = [
            (filled[:, self.number_at] - self.mean) / self.std,
            is_missing[:, self.indicator_at].to(rows.dtype),
            (filled[:, self.one_hot_at] == self.one_hot_code).to(rows.dtype),
        ]
        parts += [embed(filled[:, at].long()) for at, embed in zip(self.embedded_at, self.embeddings)]
        return torch.cat(parts, dim=1)


def _placed(columns: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield each column with the index of its first column in the matrix."""
    at = 0
    for column in columns:
        yield at, column
        at += _width(column)


def _width(column: Mapping[str, Any]) -> int:
    return len(column["parts"]) if column["kind"] == "date" else 1


def _embedding(column: Mapping[str, Any]) -> nn.Embedding:
    """Return a vector for each label and, first, for all others: zeros, unless the training split has rare labels."""
    num_labels = len(column["labels"])
    # The default of fastai (Howard and Gugger 2020, "fastai: A Layered API for Deep Learning").
    dim = column["dim"] or min(MAX_DIM, round(1.6 * num_labels**0.56))
    embedding = nn.Embedding(num_labels + 1, dim)
    nn.init.zeros_(embedding.weight[0].detach())
    return embedding
