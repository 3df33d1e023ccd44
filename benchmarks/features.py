"""What the features cost: two trainers of this project, with and without, take turns in one process."""

from __future__ import annotations

import argparse
import random
import statistics
import time
from contextlib import ExitStack, redirect_stderr

from contenders.mnist import Task, unpack
from contenders.ours import with_all_features, with_features_off
from report import Section, Target, ratio, table
from trainer import Trainer
from turns import Terminal

TEXT = """\
On: two metrics, TensorBoard, `metrics.jsonl`, a progress bar, a checkpoint after each epoch. Off: none of them. Both
train in one process, an epoch each in turn, since two processes differ by more than what is to be measured."""


def part(options: argparse.Namespace) -> Section:
    """Measure at batch 128 and at config.json's 64."""
    root = options.out / "features"
    unpack(options.data_dir, root)
    rows, targets = [], []
    for batch_size in (128, 64):
        makers = {"on": with_all_features, "off": with_features_off}
        trainers = {
            name: make(Task(root, options.out / f"features-{name}-{batch_size}", batch_size))
            for name, make in makers.items()
        }
        seconds = alternate(trainers, options.rounds)
        slower = ratio(seconds["on"], seconds["off"])
        rows.append([batch_size, *(f"{statistics.median(seconds[name]):.2f}" for name in makers), f"{slower:.3f}"])
        targets.append(Target(f"this project, features on / off, batch {batch_size}", slower, 1.03))
    return Section("What the features cost", f"{TEXT}\n\n{table(['batch', 'on, s', 'off, s', 'ratio'], rows)}", targets)


def alternate(trainers: dict[str, Trainer], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each epoch by name: `rounds` of them, after one of warming up."""
    shuffle = random.Random(0).shuffle
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    with ExitStack() as stack:
        terminal = stack.enter_context(Terminal())
        stack.enter_context(redirect_stderr(stack.enter_context(open(terminal.path, "w"))))  # the stack closes it
        for trainer in trainers.values():
            stack.enter_context(trainer._running())
        for _ in range(rounds + 1):
            order = list(trainers)
            shuffle(order)
            for name in order:
                started = time.perf_counter()
                trainers[name]._finish_epoch(trainers[name]._train_epoch(trainers[name].position.epoch))
                trainers[name].checkpoints.wait()
                seconds[name].append(time.perf_counter() - started)
    return {name: values[1:] for name, values in seconds.items()}
