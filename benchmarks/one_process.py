"""This project beside the loop written by hand, and without its features, in turns in one process."""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from functools import partial

from contenders.hand_written import plain, train_epoch, with_levers
from contenders.mnist import Task, unpack
from contenders.ours import with_all_features, with_features_off
from report import Section, Target, ratio, table
from trainer import Trainer
from turns import Terminal

PLAIN, LEVERS = "hand-written", "hand-written, fused Adam, channels_last"
ON, OFF = "this project", "this project, features off"
TEXT = """\
An epoch each in turn, all in one process and in three times the rounds, since two processes that do the same differ by
more than what is to be measured. So the hand-written loops too have memory that is kept from step to step, which is
this project's doing: in processes of their own they are slower. Features: two metrics, TensorBoard, `metrics.jsonl`,
a progress bar, a checkpoint after each epoch."""


def part(options: argparse.Namespace) -> Section:
    """Measure at batch 128 and at config.json's 64."""
    root = options.out / "one-process"
    unpack(options.data_dir, root)
    rows, targets = [], []
    for batch_size in (128, 64):
        seconds = alternate(Task(root, options.out / f"one-process-{batch_size}", batch_size), 3 * options.rounds)
        for name, values in seconds.items():
            per_epoch = f"{statistics.median(values):.2f}"
            rows.append([batch_size, name, per_epoch, f"{ratio(values, seconds[ON]):.2f}"])
        targets += [
            Target(f"{ON} / hand-written with the same settings, batch {batch_size}", *_bound(seconds, LEVERS, 1.05)),
            Target(f"{ON} / hand-written as usual, batch {batch_size}", *_bound(seconds, PLAIN, 0.90)),
            Target(f"{ON}, features on / off, batch {batch_size}", *_bound(seconds, OFF, 1.03)),
        ]
    text = f"{TEXT}\n\n{table(['batch', '', 'median, s', '× this project'], rows)}"
    return Section("An epoch beside the loop written by hand", text, targets)


def alternate(task: Task, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each epoch by name: `rounds` of them, after one of warming up."""
    shuffle = random.Random(0).shuffle
    with ExitStack() as stack:
        terminal = stack.enter_context(Terminal())
        tty = stack.enter_context(open(terminal.path, "w"))
        stack.enter_context(redirect_stderr(tty))
        stack.enter_context(redirect_stdout(tty))
        epochs: Mapping[str, Callable[[], None]] = {
            PLAIN: partial(train_epoch, *plain(task)),
            LEVERS: partial(train_epoch, *with_levers(task)),
            ON: partial(_train_epoch, _running(stack, with_all_features(task))),
            OFF: partial(_train_epoch, _running(stack, with_features_off(task))),
        }
        seconds: dict[str, list[float]] = {name: [] for name in epochs}
        for _ in range(rounds + 1):
            order = list(epochs)
            shuffle(order)
            for name in order:
                started = time.perf_counter()
                epochs[name]()
                seconds[name].append(time.perf_counter() - started)
    return {name: values[1:] for name, values in seconds.items()}


def _running(stack: ExitStack, trainer: Trainer) -> Trainer:
    stack.enter_context(trainer._running())
    return trainer


def _train_epoch(trainer: Trainer) -> None:
    trainer._finish_epoch(trainer._train_epoch(trainer.position.epoch))
    assert trainer.checkpoints
    trainer.checkpoints.wait()


def _bound(seconds: Mapping[str, list[float]], name: str, bound: float) -> tuple[float, float]:
    return ratio(seconds[ON], seconds[name]), bound
