"""Choosing the device and moving batches to it."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

import torch

from utils.errors import ConfigError

DEVICE_PATTERN = r"auto|cpu|mps|cuda|(cuda:)?\d+"


def prepare_device(n_gpu_use: int, device: str = "auto") -> tuple[torch.device, list[int]]:
    """Return the device to train on and the indices of its GPUs ([] without one).

    `device` is auto (cuda, then mps, then cpu), cpu, mps, cuda, cuda:N or N; `n_gpu_use=0` makes auto mean cpu.
    Raises ConfigError where the device is unknown or not there.
    """
    if not re.fullmatch(DEVICE_PATTERN, device):
        raise ConfigError(f"device: unknown device {device!r}; allowed: auto, cpu, mps, cuda, cuda:N")
    if n_gpu_use > 1:
        logging.getLogger("device").warning(f"n_gpu is {n_gpu_use}, but one process trains on one GPU: using one")
    name = f"cuda:{device}" if device.isdigit() else device
    if name == "auto":
        name = _best_device(n_gpu_use)
    count = torch.cuda.device_count()
    if name.startswith("cuda") and int(name.partition(":")[2] or 0) >= count:  # torch.device would wrap a large index
        raise ConfigError(f"device: {device!r} is not there; this machine has {count} CUDA devices")
    chosen = torch.device(name)
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device: 'mps' is not there; allowed: auto, cpu")
    return chosen, [chosen.index or 0] if chosen.type == "cuda" else []


def _best_device(n_gpu_use: int) -> str:
    if n_gpu_use == 0:
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    if torch.backends.mps.is_available():
        return "mps"
    logging.getLogger("device").warning("n_gpu is %d, but there is no GPU here: using the CPU", n_gpu_use)
    return "cpu"


def to_device(batch: Any, device: torch.device) -> Any:
    """Move a tensor, or the tensors in a list, tuple or dict, to the device."""
    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, list | tuple):
        return type(batch)(to_device(value, device) for value in batch)
    return batch


def memory_advice(error: Exception, device: torch.device, loader_args: Mapping[str, Any]) -> str:
    """Return what to tell of a torch.OutOfMemoryError: how much was used, by which batch size, and what to try."""
    peak = f"peak {torch.cuda.max_memory_allocated(device) / 2**30:.2f} GiB, " if device.type == "cuda" else ""
    batch_size = loader_args.get("batch_size", 1)
    smaller = f"--bs {batch_size // 2} with trainer.grad_accum_steps twice as large, or " if batch_size > 1 else ""
    return f"out of memory on {device}: {peak}batch_size {batch_size}: {error}\ntry {smaller}trainer.precision bf16"
