"""Ignite: two engines, and handlers of their events."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from ignite.engine import Events, create_supervised_evaluator, create_supervised_trainer
from ignite.handlers import ModelCheckpoint, ProgressBar, TensorboardLogger, global_step_from_engine
from ignite.metrics import Accuracy, Loss, TopKCategoricalAccuracy

from contenders.mnist import DROPOUT, LR, Task, loaders
from model.model import MnistModel
from turns import EPOCHS, NextTurn


def train(next_turn: NextTurn, task: Task) -> None:
    """Train with a TensorBoard logger, a progress bar, and a checkpoint after each epoch."""
    train_loader, valid_loader = loaders(task)
    model = MnistModel(dropout=DROPOUT)
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    trainer = create_supervised_trainer(model, optimizer, F.nll_loss, output_transform=_trainer_output)
    Accuracy(output_transform=_outputs_and_labels).attach(trainer, "accuracy")
    TopKCategoricalAccuracy(k=3, output_transform=_outputs_and_labels).attach(trainer, "top_3")
    evaluator = create_supervised_evaluator(
        model, metrics={"accuracy": Accuracy(), "top_3": TopKCategoricalAccuracy(k=3), "loss": Loss(F.nll_loss)}
    )

    @trainer.on(Events.EPOCH_STARTED)
    def wait_for_turn() -> None:
        next_turn()

    @trainer.on(Events.EPOCH_COMPLETED)
    def validate() -> None:
        evaluator.run(valid_loader)

    ProgressBar().attach(trainer, output_transform=lambda output: {"loss": output["loss"]})
    with TensorboardLogger(log_dir=task.out) as tensorboard:
        tensorboard.attach_output_handler(
            trainer,
            event_name=Events.ITERATION_COMPLETED(every=50),
            tag="training",
            output_transform=lambda output: {"loss": output["loss"]},
        )
        for tag, engine in (("training", trainer), ("validation", evaluator)):
            tensorboard.attach_output_handler(
                engine,
                event_name=Events.EPOCH_COMPLETED,
                tag=tag,
                metric_names="all",
                global_step_transform=global_step_from_engine(trainer),
            )
        checkpoint = ModelCheckpoint(task.out, n_saved=None, require_empty=False)
        parts = {"model": model, "optimizer": optimizer, "trainer": trainer}
        trainer.add_event_handler(Events.EPOCH_COMPLETED, checkpoint, parts)
        trainer.run(train_loader, max_epochs=EPOCHS)


def _trainer_output(images: Any, labels: Any, outputs: Any, loss: Any) -> dict[str, Any]:
    return {"loss": loss.item(), "outputs": outputs, "labels": labels}


def _outputs_and_labels(output: dict[str, Any]) -> tuple[Any, Any]:
    return output["outputs"], output["labels"]
