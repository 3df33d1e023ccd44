"""What all contenders are given: MNIST, and the settings of config.json."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torchvision
from torch.utils.data import DataLoader, random_split
from torchvision.transforms import Compose, Normalize, ToTensor

MEAN, STD = 0.1307, 0.3081
NUM_TRAIN, NUM_VALID = 54_000, 6_000
LR, DROPOUT = 0.002, 0.1

Batches = Iterable[Any]
"""Of (inputs, targets); can be iterated anew each epoch."""


@dataclass(frozen=True)
class Task:
    """What one contender is to do; `out` is its directory for logs and checkpoints."""

    data_dir: Path
    out: Path
    batch_size: int


def loaders(task: Task) -> tuple[Batches, Batches]:
    """Return the loaders of the training and the validation split, as in torchvision's examples."""
    transform = Compose([ToTensor(), Normalize((MEAN,), (STD,))])
    dataset = torchvision.datasets.MNIST(task.data_dir, train=True, transform=transform)
    train, valid = random_split(dataset, [NUM_TRAIN, NUM_VALID])
    train_loader = DataLoader(train, batch_size=task.batch_size, shuffle=True, num_workers=2)
    return train_loader, DataLoader(valid, batch_size=task.batch_size, num_workers=2)


def unpack(data_dir: Path, root: Path) -> None:
    """Lay MNIST's files, gzip or not, in `data_dir` or its MNIST/raw, unpacked where torchvision looks under `root`.

    Raises SystemExit where they are not there.
    """
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        name += "-ubyte"
        places = [folder / file for folder in (data_dir, data_dir / "MNIST/raw") for file in (name, f"{name}.gz")]
        found = next((path for path in places if path.is_file()), None)
        if found is None:
            raise SystemExit(f"{data_dir}: {name}.gz is not there; this is a benchmark of MNIST: --data-dir says where")
        with gzip.open(found) if found.suffix == ".gz" else open(found, "rb") as source, open(raw / name, "wb") as file:
            shutil.copyfileobj(source, file)
