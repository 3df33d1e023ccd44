"""A rehearsal: a few steps of the real loop on the real device, and what a run would take. Nothing is kept."""

from __future__ import annotations

import time
from contextlib import ExitStack, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from base import BaseTrainer
from base.freezing import describe_groups
from base.model_graph import first_call
from preflight.shape_watch import ShapeWatch
from preflight.summary import summarize
from utils.device import peak_memory
from utils.nested import by_name, describe

NUM_STEPS = 6


def run_few_steps(trainer: BaseTrainer, num_steps: int) -> float:
    """Train and validate at most `num_steps` steps of the first epoch; return the seconds that they took.

    The trainer must not be used to train afterwards; the options, which it shares with the next one, are as before.
    """
    limit, trainer.options.limit_batches = trainer.options.limit_batches, num_steps
    trainer.position.epoch, trainer.position.step_in_epoch = 1, 0
    started = time.perf_counter()
    try:
        trainer.loop.attach()
        with trainer.loop.epoch():
            trainer._before_epoch(1)
            log = trainer._train_epoch(1)
        trainer.monitor.check(log)
    finally:
        trainer.options.limit_batches = limit
    if trainer.device.type == "cuda":
        torch.cuda.synchronize(trainer.device)
    return time.perf_counter() - started


def rehearse(trainer: BaseTrainer) -> list[str]:
    """Train a few steps and validate as many; return lines about the data, layers, parameters, time and memory.

    Whatever a run would fail at is raised here as it would be there. The trainer must not be used to train afterwards.
    """
    limit = max(2, trainer.options.limit_batches or NUM_STEPS)
    trainer.loop.attach()
    trainer._preflight()
    trainer.loop.warn_of_what_is_ignored()
    groups = describe_groups(trainer.optimizer, trainer.model, trainer.freezing)
    with TemporaryDirectory() as folder:  # for loops that write files of their own into the run directory
        trainer.config.save_dir = Path(folder)
        is_watched = type(trainer)._preflight is BaseTrainer._preflight and not trainer.options.compile
        watch = ShapeWatch(trainer.logger) if is_watched else nullcontext()  # of a plain loop, this is the first batch
        with ExitStack() as stack:
            stack.enter_context(watch)
            calls = {one: stack.enter_context(first_call(one)) for one in by_name(trainer.model).values()}
            run_few_steps(trainer, 1)  # warms up
        first_s = run_few_steps(trainer, 1)
        step_s = max(0.0, run_few_steps(trainer, limit) - first_s) / (limit - 1)
        costs = _cost_lines(trainer, step_s)  # before the summary, which takes memory too
        layers = [line for one, seen in calls.items() for call in seen for line in summarize(one, *call)]
    return [*_data_lines(trainer), *layers, *groups, *costs]


def _data_lines(trainer: BaseTrainer) -> list[str]:
    loader = trainer.loop.loader
    if not trainer.loop.is_followed:
        return []
    return [
        f"data: {loader.n_samples:,} training samples, {len(loader.valid_indices()):,} for validation",
        f"a batch: {describe(loader.peek(loader.batch_size).batch)}",
    ]


def _cost_lines(trainer: BaseTrainer, step_s: float) -> list[str]:
    parameters = sum(parameter.numel() for parameter in trainer.model.parameters() if parameter.requires_grad)
    lines = [f"model: {parameters:,} trainable parameters"]
    if trainer.loop.is_followed:
        num_steps = trainer.loop.loader.num_steps(trainer.options.grad_accum_steps)
        lines.append(
            f"time on {trainer.device}: about {step_s * 1e3:.1f} ms a step, validation included; {num_steps:,} steps "
            f"an epoch; {step_s * num_steps:.0f} s an epoch, {step_s * num_steps * trainer.epochs:.0f} s in all"
        )
    where = "on the device" if trainer.device.type == "cuda" else "in this process"
    memory = peak_memory(trainer.device)
    return [*lines, f"memory: {memory / 2**20:.0f} MiB {where}"] if memory else lines
