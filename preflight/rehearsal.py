"""A rehearsal: a few steps of the real loop on the real device, and what a run would take. Nothing is written."""

from __future__ import annotations

import time
from typing import Any

import torch

from base import BaseDataLoader, BaseTrainer
from utils.device import peak_memory
from utils.nested import describe

NUM_STEPS = 6  # the first warms up


def run_few_steps(trainer: BaseTrainer, num_steps: int) -> float:
    """Train and validate at most `num_steps` steps of the first epoch; return the seconds that they took.

    The trainer must not be used to train afterwards.
    """
    trainer.options.limit_batches = num_steps
    trainer.position.epoch, trainer.position.step_in_epoch = 1, 0
    trainer.loop.attach()
    started = time.perf_counter()
    trainer._one_epoch()
    if trainer.device.type == "cuda":
        torch.cuda.synchronize(trainer.device)
    return time.perf_counter() - started


def rehearse(trainer: BaseTrainer) -> list[str]:
    """Train a few steps and validate as many; return lines that tell the data, shapes, parameters, time and memory.

    Whatever a run would stumble over is raised here as it would be there. The trainer must not be used to train
    afterwards.
    """
    limit = trainer.options.limit_batches or NUM_STEPS
    trainer.loop.attach()
    trainer._preflight()
    trainer.loop.warn_of_what_is_ignored()
    loader: Any = trainer.loop.loader
    lines = _data_lines(loader, trainer) if isinstance(loader, BaseDataLoader) else []
    first_s = run_few_steps(trainer, 1)
    step_s = max(0.0, run_few_steps(trainer, limit) - first_s / 2) / max(1, limit - 1)
    parameters = sum(parameter.numel() for parameter in trainer.model.parameters() if parameter.requires_grad)
    lines.append(f"model: {parameters:,} trainable parameters")
    if isinstance(loader, BaseDataLoader):
        num_steps = loader.num_steps(trainer.options.grad_accum_steps)
        lines.append(
            f"time on {trainer.device}: about {step_s * 1e3:.1f} ms a step, validation included; {num_steps:,} steps "
            f"an epoch; {step_s * num_steps:.0f} s an epoch, {step_s * num_steps * trainer.epochs:.0f} s in all"
        )
    memory, where = peak_memory(trainer.device), "on the device" if trainer.device.type == "cuda" else "in this process"
    return [*lines, f"memory: {memory / 2**20:.0f} MiB {where}"] if memory else lines


def _data_lines(loader: BaseDataLoader, trainer: BaseTrainer) -> list[str]:
    batch = loader.peek(loader.batch_size or 1).batch
    with torch.random.fork_rng(devices=[]):
        return [
            f"data: {loader.n_samples:,} training samples, {len(loader.valid_indices()):,} for validation",
            f"a batch: {describe(batch)}",
        ]
