"""Accelerate: a loop of one's own, whose objects the Accelerator prepares."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy
from tqdm import tqdm

from contenders.mnist import DROPOUT, LR, NUM_VALID, Task, loaders
from model.model import MnistModel
from turns import NextTurn


def train(next_turn: NextTurn, task: Task) -> None:
    """Train with a TensorBoard tracker, a progress bar, and the state saved after each epoch."""
    accelerator = Accelerator(cpu=True, log_with="tensorboard", project_dir=task.out)
    accelerator.init_trackers("mnist")
    model = MnistModel(dropout=DROPOUT)
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    model, optimizer, train_loader, valid_loader = accelerator.prepare(model, optimizer, *loaders(task))
    accuracy = MulticlassAccuracy(10, average="micro")
    metrics = MetricCollection({"accuracy": accuracy, "top_3": MulticlassAccuracy(10, top_k=3, average="micro")})
    train_metrics = metrics.clone(prefix="train_").to(accelerator.device)
    valid_metrics = metrics.clone(prefix="val_").to(accelerator.device)
    epoch, step = 0, 0
    while True:
        next_turn()
        epoch += 1
        model.train()
        for images, labels in tqdm(train_loader, disable=not accelerator.is_local_main_process):
            optimizer.zero_grad()
            outputs = model(images)
            loss = F.nll_loss(outputs, labels)
            accelerator.backward(loss)
            optimizer.step()
            train_metrics.update(*accelerator.gather_for_metrics((outputs, labels)))
            step += 1
            if step % 50 == 0:
                accelerator.log({"train_loss": loss.item()}, step=step)
        model.eval()
        valid_loss = 0.0
        for images, labels in valid_loader:
            with torch.no_grad():
                outputs = model(images)
            outputs, labels = accelerator.gather_for_metrics((outputs, labels))
            valid_loss += F.nll_loss(outputs, labels, reduction="sum").item()
            valid_metrics.update(outputs, labels)
        values = {**train_metrics.compute(), **valid_metrics.compute(), "val_loss": valid_loss / NUM_VALID}
        accelerator.log({name: float(value) for name, value in values.items()}, step=step)
        train_metrics.reset()
        valid_metrics.reset()
        accelerator.save_state(task.out / f"epoch_{epoch}")
