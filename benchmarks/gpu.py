"""On a GPU, in bf16: MNIST's LeNet and a ResNet-18, eager, as a CUDA graph, by this project and by Lightning."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models import resnet18

import base
import train
from contenders.hand_written import TensorBatches
from contenders.ours import train_in_turns
from model.model import MnistModel
from parse_config.slot import Slot
from report import Section, ratio, table
from slots import SLOTS
from turns import EPOCHS, NextTurn, race

BATCH_SIZE = 128


class ResNet18(base.BaseModel):
    """torchvision's ResNet-18, of ten classes."""

    def __init__(self) -> None:
        super().__init__()
        self.resnet = resnet18(num_classes=10)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) float -> log-probabilities (N, 10)."""
        return F.log_softmax(self.resnet(images), dim=1)


@dataclass(frozen=True)
class Task:
    """A model and the shape of its random images; all counts are multiples of the batch size."""

    model: type[base.BaseModel]
    image_shape: tuple[int, int, int]
    num_train: int
    num_valid: int
    device: str = "cuda"


TASKS = {
    "LeNet, images of MNIST's shape": Task(MnistModel, (1, 28, 28), 422 * BATCH_SIZE, 47 * BATCH_SIZE),
    "ResNet-18, 32x32 images": Task(ResNet18, (3, 32, 32), 200 * BATCH_SIZE, 20 * BATCH_SIZE),
}


class RandomImages(base.BaseDataLoader):
    """The task's images for this project."""

    def __init__(self, image_shape: list[int], num_train: int, num_valid: int, training: bool = True) -> None:
        dataset = base.TensorBatches(*random_images(tuple(image_shape), num_train + num_valid))
        super().__init__(dataset, BATCH_SIZE, shuffle=training, validation_split=num_valid, num_workers=0)


def random_images(image_shape: tuple[int, ...], count: int) -> tuple[Tensor, Tensor]:
    """Return images and labels of ten classes."""
    return torch.randn(count, *image_shape), torch.randint(10, (count,))


def part(options: argparse.Namespace) -> Section:
    """Race the contenders for each task."""
    text = [
        f"{torch.cuda.get_device_name()}, bf16 autocast, Adam 0.002, batch {BATCH_SIZE}, random images, training and "
        f"validation. The hand-written loops have all images in the GPU's memory, the second also fused Adam and "
        f"channels_last; this project and Lightning have two metrics, TensorBoard and a checkpoint each epoch, and "
        f"Lightning a DataLoader with two workers over tensors."
    ]
    for number, (name, task) in enumerate(TASKS.items()):
        out = options.out / f"gpu-{number}"
        contenders = {
            "Hand-written, eager": partial(eager, task=task),
            "Hand-written, CUDA graph": partial(graphed, task=task),
            "This project, cuda_graph": partial(ours, task=task, out=out / "ours", cuda_graph=True),
            "Lightning": partial(lightning, task=task, out=out / "lightning"),
        }
        seconds = race(contenders, options.rounds)
        ours_s = seconds["This project, cuda_graph"]
        rows = [[n, f"{statistics.median(s) * 1e3:.1f}", f"{ratio(s, ours_s):.2f}"] for n, s in seconds.items()]
        text.append(f"{name}, {task.num_train // BATCH_SIZE} steps:")
        text.append(table(["", "median epoch, ms", "× this project"], rows))
    return Section("On a GPU", "\n\n".join(text))


def eager(next_turn: NextTurn, task: Task) -> None:
    """Train as it is usually written."""
    model = task.model().to(task.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.002)

    def step(images: Tensor, labels: Tensor) -> None:
        optimizer.zero_grad()
        with torch.autocast(task.device, torch.bfloat16):
            loss = F.nll_loss(model(images), labels)
        loss.backward()
        optimizer.step()

    _fit(next_turn, task, model, step)


def graphed(next_turn: NextTurn, task: Task) -> None:
    """Train by replaying one captured step ("Whole-network capture" in torch's notes on CUDA graphs)."""
    model = task.model().to(task.device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.002, fused=True, capturable=True)
    static_images, static_labels = (tensor.to(task.device) for tensor in random_images(task.image_shape, BATCH_SIZE))
    static_images = static_images.contiguous(memory_format=torch.channels_last)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(task.device, torch.bfloat16, cache_enabled=False):  # a cache would outlive the capture
            loss = F.nll_loss(model(static_images), static_labels)
        loss.backward()
        optimizer.step()

    side_stream = torch.cuda.Stream()
    side_stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side_stream):  # warm-up, as capturing wants it
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side_stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()

    def replay(images: Tensor, labels: Tensor) -> None:
        static_images.copy_(images)
        static_labels.copy_(labels)
        graph.replay()

    _fit(next_turn, task, model, replay)


def _fit(next_turn: NextTurn, task: Task, model: torch.nn.Module, step: Callable[[Tensor, Tensor], None]) -> None:
    images, labels = (t.to(task.device) for t in random_images(task.image_shape, task.num_train + task.num_valid))
    train_batches = TensorBatches(images[: task.num_train], labels[: task.num_train], BATCH_SIZE, shuffle=True)
    valid_batches = TensorBatches(images[task.num_train :], labels[task.num_train :], BATCH_SIZE, shuffle=False)
    while True:
        next_turn()
        model.train()
        for batch in train_batches:
            step(*batch)
        model.eval()
        valid_loss = torch.zeros((), device=task.device)
        with torch.no_grad(), torch.autocast(task.device, torch.bfloat16):
            for inputs, targets in valid_batches:
                valid_loss += F.nll_loss(model(inputs), targets, reduction="sum")
        print(f"loss {valid_loss.item() / task.num_valid:.4f}")  # waits for the GPU, so the epoch is over


def ours(next_turn: NextTurn, task: Task, out: Path, cuda_graph: bool) -> None:
    """Train this project's way, with model and data of this file."""
    settings: dict[str, Any] = {"cuda_graph": True} if cuda_graph else {}
    config = {
        "name": "gpu",
        "device": task.device,
        "arch": {"type": task.model.__name__},
        "data_loader": {
            "type": "RandomImages",
            "args": {
                "image_shape": list(task.image_shape),
                "num_train": task.num_train,
                "num_valid": task.num_valid,
            },
        },
        "optimizer": {"type": "Adam", "args": {"lr": 0.002}},
        "loss": "nll_loss",
        "metrics": ["accuracy", "top_k_acc"],
        "trainer": {"epochs": EPOCHS, "save_dir": str(out), "precision": "bf16", **settings},
    }
    slots = SLOTS | {
        "arch": Slot((__name__, "model.model"), base=base.BaseModel),
        "data_loader": Slot((__name__,), base=base.BaseDataLoader, provided=("training",)),
    }
    train_in_turns(train.build_trainer(train.ConfigParser(config, slots=slots)), next_turn)


def lightning(next_turn: NextTurn, task: Task, out: Path) -> None:
    """Train with the LightningModule of the CPU's race."""
    from lightning import Trainer
    from lightning.pytorch.callbacks import ModelCheckpoint
    from lightning.pytorch.loggers import TensorBoardLogger
    from torch.utils.data import DataLoader, TensorDataset

    from contenders.lightning import Classifier, InTurns

    trainer = Trainer(
        accelerator=task.device,
        devices=1,
        precision="bf16-mixed",
        max_epochs=-1,
        logger=TensorBoardLogger(out),
        callbacks=[ModelCheckpoint(save_top_k=-1), InTurns(next_turn)],
    )
    options: dict[str, Any] = {"batch_size": BATCH_SIZE, "num_workers": 2, "pin_memory": True}
    train_set = TensorDataset(*random_images(task.image_shape, task.num_train))
    valid_set = TensorDataset(*random_images(task.image_shape, task.num_valid))
    trainer.fit(
        Classifier(task.model(), lr=0.002),
        DataLoader(train_set, shuffle=True, **options),
        DataLoader(valid_set, **options),
    )
