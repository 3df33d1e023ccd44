"""A multilayer perceptron over the columns of a table, of any kind, for regression and classification."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from base import BaseDataLoader, BaseModel
from model.table_encoder import TableEncoder
from utils import ConfigError
from utils.annotations import PositiveInt, Probability


class TableMLP(BaseModel):
    """Takes rows of a TableDataLoader as they are, and returns targets in their own units, or logits of the classes.

    The training split's statistics are buffers: a checkpoint or an exported model needs only the codes of the labels
    besides.
    """

    target_mean: Tensor
    target_std: Tensor

    def __init__(
        self,
        table: dict[str, Any],
        hidden: list[PositiveInt],
        dropout: Probability = 0.0,
        target_scale: Literal["standard", "log"] | None = "standard",
        num_classes: PositiveInt | None = None,
    ) -> None:
        """`table` and `num_classes` come from the data; `hidden` is the width of each hidden layer, [] a linear model.

        The last layer learns standardised targets ("standard") or standardised logarithms ("log"); the model returns
        the targets' units either way. With "log", use the loss `log_mse_loss`: in the targets' own units the largest
        ones would dominate. Raises ConfigError if a target has no logarithm.
        """
        super().__init__()
        self.encoder = TableEncoder(table["columns"])
        self.is_log = num_classes is None and target_scale == "log"
        targets = table["targets"]
        self.in_features = sum(len(column["fill"]) for column in table["columns"])
        layers: list[nn.Module] = []
        widths = [self.encoder.out_features, *hidden]
        for fan_in, fan_out in zip(widths, hidden):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], num_classes or len(targets)))
        mean, std = [0.0] * len(targets), [1.0] * len(targets)
        if self.is_log:
            for target in targets:
                if target["log_mean"] is None:
                    raise ConfigError(f"arch.args.target_scale: log, but {target['name']!r} is not always above 0")
            mean, std = [target["log_mean"] for target in targets], [target["log_std"] for target in targets]
        elif num_classes is None and target_scale == "standard":
            mean, std = [target["mean"][0] for target in targets], [target["std"][0] for target in targets]
        num_outputs = num_classes or len(targets)
        self.register_buffer("target_mean", torch.tensor(mean if num_classes is None else [0.0] * num_outputs))
        self.register_buffer("target_std", torch.tensor(std if num_classes is None else [1.0] * num_outputs))

    def adapt(self, data_loader: BaseDataLoader) -> None:
        """Check that the data is what `table` says."""
        num_features = data_loader.peek(1).batch[0].shape[1]
        if num_features != self.in_features:
            raise ConfigError(f"arch.args.table: describes {self.in_features} columns, but the data has {num_features}")

    def forward(self, rows: Tensor) -> Tensor:
        """(N, F) float32, NaN where a value is missing -> (N, num_targets), or logits (N, num_classes)."""
        outputs = self.layers(self.encoder(rows)) * self.target_std + self.target_mean
        return outputs.exp() if self.is_log else outputs
