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
    """Takes rows of a TableDataLoader as they are, and gives targets in their own units, or logits of the classes.

    What it must know of the training split is in buffers, so that a checkpoint needs nothing beside it but the codes of
    its labels, and an exported model has the rest in its graph.
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

        The last layer gives targets that are standardised ("standard") or whose logarithms are ("log"); what the model
        returns is in the targets' units all the same. With "log", use the loss `log_mse_loss`: in the targets' units
        the largest would count for everything. Raises ConfigError where a target has no logarithm.
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
                    raise ConfigError(f"arch.args.target_scale: log, but {target['name']!r} is not above 0 everywhere")
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
            raise ConfigError(f"arch.args.table: of {self.in_features} columns, but the data has {num_features}")

    def forward(self, rows: Tensor) -> Tensor:
        """(N, F) float32, NaN where a value is missing -> (N, num_targets), or logits (N, num_classes)."""
        outputs = self.layers(self.encoder(rows)) * self.target_std + self.target_mean
        return outputs.exp() if self.is_log else outputs
