"""Lightning: a LightningModule and its Trainer."""

from __future__ import annotations

from typing import Any

import lightning
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from contenders.mnist import DROPOUT, LR, Task, loaders
from model.model import MnistModel
from turns import NextTurn


def train(next_turn: NextTurn, task: Task) -> None:
    """Train with a TensorBoard logger, a progress bar, and a checkpoint after each epoch."""
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=-1,
        logger=TensorBoardLogger(task.out),
        callbacks=[ModelCheckpoint(save_top_k=-1), InTurns(next_turn)],
    )
    trainer.fit(Classifier(MnistModel(dropout=DROPOUT), LR), *loaders(task))


class Classifier(lightning.LightningModule):
    """Trains `model`, which gives log-probabilities, and logs loss and two metrics of both splits."""

    def __init__(self, model: nn.Module, lr: float) -> None:
        super().__init__()
        self.model = model
        self.lr = lr
        accuracy = MulticlassAccuracy(10, average="micro")
        metrics = MetricCollection({"accuracy": accuracy, "top_3": MulticlassAccuracy(10, top_k=3, average="micro")})
        self.train_metrics = metrics.clone(prefix="train_")
        self.val_metrics = metrics.clone(prefix="val_")

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        images, labels = batch
        outputs = self.model(images)
        loss = F.nll_loss(outputs, labels)
        self.train_metrics.update(outputs, labels)
        self.log("train_loss", loss, prog_bar=True)
        self.log_dict(self.train_metrics, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Add a batch to the metrics."""
        images, labels = batch
        outputs = self.model(images)
        self.val_metrics.update(outputs, labels)
        self.log("val_loss", F.nll_loss(outputs, labels))
        self.log_dict(self.val_metrics)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return torch.optim.Adam(self.parameters(), lr=self.lr)


class InTurns(Callback):
    """Waits for its turn before each epoch."""

    def __init__(self, next_turn: NextTurn) -> None:
        self.next_turn = next_turn

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Wait."""
        self.next_turn()
