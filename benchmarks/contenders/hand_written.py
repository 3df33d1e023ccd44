"""The training loop that everybody has written once: nothing is logged or saved."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from contenders.mnist import DROPOUT, LR, MEAN, NUM_TRAIN, NUM_VALID, STD, Batches, Task, loaders
from model.model import MnistModel
from turns import NextTurn

Parts = tuple[nn.Module, torch.optim.Optimizer, Batches, Batches]


def from_memory(next_turn: NextTurn, task: Task) -> None:
    """Train on tensors that were made once."""
    _fit(next_turn, *plain(task))


def from_memory_with_levers(next_turn: NextTurn, task: Task) -> None:
    """Train on tensors that were made once, with fused Adam and channels_last."""
    _fit(next_turn, *with_levers(task))


def plain(task: Task) -> Parts:
    """Return what `train_epoch` takes."""
    model = MnistModel(dropout=DROPOUT)
    return model, torch.optim.Adam(model.parameters(), lr=LR), *_tensors(task)


def with_levers(task: Task) -> Parts:
    """Return what `train_epoch` takes, with fused Adam and channels_last."""
    model = MnistModel(dropout=DROPOUT).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=LR, fused=True)
    return model, optimizer, *_tensors(task, torch.channels_last)


def from_loader(next_turn: NextTurn, task: Task) -> None:
    """Train on torchvision's MNIST: PIL images, transformed by two workers."""
    model = MnistModel(dropout=DROPOUT)
    _fit(next_turn, model, torch.optim.Adam(model.parameters(), lr=LR), *loaders(task))


def _fit(
    next_turn: NextTurn, model: nn.Module, optimizer: torch.optim.Optimizer, train: Batches, valid: Batches
) -> None:
    while True:
        next_turn()
        train_epoch(model, optimizer, train, valid)


def train_epoch(model: nn.Module, optimizer: torch.optim.Optimizer, train: Batches, valid: Batches) -> None:
    """Train and validate."""
    model.train()
    for images, labels in train:
        optimizer.zero_grad()
        loss = F.nll_loss(model(images), labels)
        loss.backward()
        optimizer.step()
    model.eval()
    valid_loss, num_correct = 0.0, 0
    with torch.no_grad():
        for images, labels in valid:
            outputs = model(images)
            valid_loss += F.nll_loss(outputs, labels, reduction="sum").item()
            num_correct += (outputs.argmax(dim=1) == labels).sum().item()
    print(f"loss {valid_loss / NUM_VALID:.4f}, accuracy {num_correct / NUM_VALID:.4f}")


class TensorBatches:
    """Batches of tensors, shuffled anew in each iteration if asked for."""

    def __init__(self, images: Tensor, labels: Tensor, batch_size: int, shuffle: bool) -> None:
        self.images, self.labels, self.batch_size, self.shuffle = images, labels, batch_size, shuffle

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (images, labels)."""
        order = torch.randperm(len(self.labels)) if self.shuffle else torch.arange(len(self.labels))
        for indices in order.split(self.batch_size):
            yield self.images[indices], self.labels[indices]


def _tensors(task: Task, memory_format: torch.memory_format = torch.contiguous_format) -> tuple[Batches, Batches]:
    mnist = torchvision.datasets.MNIST(task.data_dir, train=True)
    images = ((mnist.data.float() / 255 - MEAN) / STD).unsqueeze(1).contiguous(memory_format=memory_format)
    train = TensorBatches(images[:NUM_TRAIN], mnist.targets[:NUM_TRAIN], task.batch_size, shuffle=True)
    return train, TensorBatches(images[NUM_TRAIN:], mnist.targets[NUM_TRAIN:], task.batch_size, shuffle=False)
