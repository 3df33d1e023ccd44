"""Images per second from a folder of JPEG files: this project, decoding and from its cache, and torchvision."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader

from data_loader.image_folder import ImageFolderDataLoader
from report import Section, table
from speed.modes import keep_freed_memory

NUM_IMAGES, NUM_CLASSES, SHAPE = 2000, 10, (375, 500, 3)
SIZES = (64, 224)
BATCH_SIZE, NUM_WORKERS = 64, 2


def part(options: argparse.Namespace) -> Section:
    """Measure an epoch of each loader in turn, after one of warming up."""
    keep_freed_memory()  # as train.py does; the workers of all inherit it
    rows: list[list[object]] = []
    with tempfile.TemporaryDirectory(dir=options.out) as folder:
        write_images(Path(folder) / "images")
        for size in SIZES:
            seconds = race(loaders(Path(folder), size), options.rounds)
            base = statistics.median(seconds["torchvision"])
            for name, times in seconds.items():
                median = statistics.median(times)
                rows.append([size, name, f"{NUM_IMAGES / median:,.0f}", f"{base / median:.1f}"])
    text = (
        f"{NUM_IMAGES:,} JPEG files of {SHAPE[1]} x {SHAPE[0]}, batches of {BATCH_SIZE}, {NUM_WORKERS} workers, which "
        f"torchvision's DataLoader starts in each epoch. From the cache there are no workers."
    )
    header = ["pixels", "loader", "images/s", "times torchvision"]
    return Section("Images from a folder", f"{text}\n\n{table(header, rows)}")


def write_images(root: Path) -> None:
    """Write smooth random images, which take about as long to decode as photographs."""
    generator = np.random.default_rng(0)
    for number in range(NUM_IMAGES):
        folder = root / f"class{number % NUM_CLASSES}"
        folder.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(generator.integers(0, 256, (24, 32, 3), np.uint8))
        coarse.resize(SHAPE[1::-1], Image.Resampling.BICUBIC).save(folder / f"{number:04}.jpg", quality=90)


def loaders(folder: Path, size: int) -> dict[str, Callable[[int], Any]]:
    """Return, for each contender, the function that starts an epoch."""
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    root = str(folder / "images")
    transforms = [v2.Resize(size), v2.CenterCrop(size), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    dataset = ImageFolder(root, v2.Compose(transforms))
    plain: DataLoader[Any] = DataLoader(dataset, BATCH_SIZE, shuffle=True, num_workers=NUM_WORKERS)
    args: dict[str, Any] = {"size": size, "cache_dir": str(folder / "cache")}
    decoding = ImageFolderDataLoader(root, BATCH_SIZE, num_workers=NUM_WORKERS, **args)
    cached = ImageFolderDataLoader(root, BATCH_SIZE, cache=True, **args)
    return {
        "torchvision": lambda number: plain,
        "this project": lambda number: decoding.epoch_steps(number, seed=0),
        "this project, from the cache": lambda number: cached.epoch_steps(number, seed=0),
    }


def race(contenders: dict[str, Callable[[int], Any]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each epoch by contender, who take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(1, rounds + 2):
        for name, start in contenders.items():
            began = time.perf_counter()
            for _ in start(number):
                pass
            seconds[name].append(time.perf_counter() - began)
    return {name: times[1:] for name, times in seconds.items()}
