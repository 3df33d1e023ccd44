"""An epoch of MNIST, trained in each way: hand-written, by this project, by Lightning, Accelerate and Ignite."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from contenders import accelerate, hand_written, ignite, lightning, ours
from contenders.mnist import NUM_TRAIN, NUM_VALID, Task, unpack
from report import Section, Target, ratio, table
from turns import Contender, race

PLAIN, LEVERS = "Hand-written, tensors in memory", "Hand-written, in memory, fused Adam, channels_last"
OURS = "This project"
CONTENDERS = {
    PLAIN: hand_written.from_memory,
    LEVERS: hand_written.from_memory_with_levers,
    OURS: ours.mnist,
    "Hand-written, DataLoader, 2 workers": hand_written.from_loader,
    "Lightning": lightning.train,
    "Accelerate": accelerate.train,
    "Ignite": ignite.train,
}
TEXT = f"""\
Seconds per epoch, everything in it: {NUM_TRAIN:,} training and {NUM_VALID:,} validation images, the LeNet of
`model/model.py`, Adam 0.002, on the CPU. Each contender has a process of its own; they take turns, one epoch at a time,
in a new order each round; the first round is not counted. The ratio is the median of the rounds' ratios.

This project, Lightning, Accelerate and Ignite show a progress bar, compute two metrics of both splits, log to
TensorBoard and save a checkpoint each epoch; the last three read torchvision's MNIST by a DataLoader with two workers,
as their documentation does. The hand-written loops compute loss and accuracy of the validation split, and that is all.
The code is in `benchmarks/contenders/`."""


def part(options: argparse.Namespace) -> Section:
    """Race all."""
    root = options.out / "mnist"
    unpack(options.data_dir, root)
    seconds = race(_tasks(list(CONTENDERS), 128, root, options.out), options.rounds)
    text = f"{TEXT}\n\n![Seconds per epoch](docs/benchmarks.png)\n\n{_table(seconds)}"
    targets = [
        Target(f"{name} / this project, batch 128", ratio(seconds[name], seconds[OURS]), 2.5, at_least=True)
        for name in ("Lightning", "Accelerate", "Ignite")
    ]
    return Section("An epoch of MNIST", text, targets, bars=seconds)


def _tasks(names: Sequence[str], batch_size: int, root: Path, out: Path) -> dict[str, Contender]:
    """Return the contenders of these names, each with its task."""
    tasks = [Task(root, out / f"{batch_size}-{number}", batch_size) for number in range(len(names))]
    return {name: partial(CONTENDERS[name], task=task) for name, task in zip(names, tasks)}


def _table(seconds: Mapping[str, Sequence[float]]) -> str:
    rows = [
        [name, f"{statistics.median(s):.2f}", f"{min(s):.2f} – {max(s):.2f}", f"{ratio(s, seconds[OURS]):.2f}"]
        for name, s in sorted(seconds.items(), key=lambda item: statistics.median(item[1]))
    ]
    return table(["", "median, s", "fastest – slowest, s", "× this project"], rows)
