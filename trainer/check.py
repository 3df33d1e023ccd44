"""A rehearsal: one training step on the real device, and what a run would come to. Nothing is written."""

from __future__ import annotations

import time
from typing import Any

import torch

from trainer.trainer import Trainer
from utils.device import peak_memory

NUM_TIMED_STEPS = 5


def rehearse(trainer: Trainer) -> list[str]:
    """Make a few training steps; return lines that tell the data, shapes, parameters, time and memory.

    The trainer must not be used to train afterwards.
    """
    loader, device = trainer.data_loader, trainer.device
    steps = loader.epoch_steps(1, **trainer.step_options)
    microbatches = next(trainer._on_device(steps))
    inputs, targets = microbatches[0]
    trainer.model.eval()
    with torch.no_grad():
        outputs = _shapes(trainer.model(inputs))
    trainer.model.train()
    loss, _ = trainer._train_step(microbatches)
    _wait(device)
    times = []
    for _ in range(NUM_TIMED_STEPS):
        started = time.perf_counter()
        trainer._train_step(microbatches)
        _wait(device)
        times.append(time.perf_counter() - started)
    step_s = sorted(times)[NUM_TIMED_STEPS // 2]
    parameters = sum(parameter.numel() for parameter in trainer.model.parameters() if parameter.requires_grad)
    valid_sampler: Any = trainer.valid_data_loader.batch_sampler if trainer.valid_data_loader else None
    num_valid = len(valid_sampler.indices) if valid_sampler else 0
    epoch_s = step_s * trainer.num_steps
    where = "on the device" if device.type == "cuda" else "in this process"
    return [
        f"data: {loader.n_samples:,} training samples, {num_valid:,} for validation",
        f"inputs {_shapes(inputs)}, targets {_shapes(targets)}, outputs {outputs}",
        f"model: {parameters:,} trainable parameters; loss of the first step {loss.item():.4g}",
        f"time on {device}: {step_s * 1e3:.1f} ms a step, {trainer.num_steps:,} steps an epoch; "
        f"{epoch_s:.0f} s an epoch, {epoch_s * trainer.epochs:.0f} s in all, validation not counted",
        f"memory: {peak_memory(device) / 2**20:.0f} MiB {where}",
    ]


def _shapes(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_shapes(item)}" for key, item in value.items())
    return ", ".join(_shapes(item) for item in value) if isinstance(value, list | tuple) else type(value).__name__


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
