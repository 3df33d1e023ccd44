"""Choosing the device and moving batches to it."""

from __future__ import annotations

import gc
import logging
import re
import resource
import sys
from collections.abc import Iterable, Iterator, Mapping
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
    if chosen.index is not None:
        torch.cuda.set_device(chosen)  # streams and graphs are made on the current one
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


def to_device(batch: Any, device: torch.device, images: torch.memory_format = torch.contiguous_format) -> Any:
    """Move a tensor, or the tensors in a list, tuple or dict, to the device; 4-D ones in the memory format `images`."""
    if isinstance(batch, torch.Tensor):
        is_laid_out = batch.ndim != 4 or batch.is_contiguous(memory_format=images)  # images of one channel are both
        memory_format = torch.preserve_format if is_laid_out else images
        return batch.to(device, non_blocking=True, memory_format=memory_format)
    if isinstance(batch, dict):
        return {key: to_device(value, device, images) for key, value in batch.items()}
    if isinstance(batch, list | tuple):
        return type(batch)(to_device(value, device, images) for value in batch)
    return batch


def prefetch(
    batches: Iterable[Any], device: torch.device, images: torch.memory_format = torch.contiguous_format
) -> Iterator[Any]:
    """Yield the batches on the device; on a GPU, copy the next one on a side stream while this one is computed with."""
    if device.type != "cuda":
        yield from (to_device(batch, device, images) for batch in batches)
        return
    side_stream = torch.cuda.Stream(device)
    ready: list[tuple[Any, torch.cuda.Event]] = []
    for batch in batches:
        # What is on the device already was computed on the current stream, for which the other does not wait.
        is_on_host = all(tensor.device.type == "cpu" for tensor in tensors_of(batch))
        stream = side_stream if is_on_host else torch.cuda.current_stream()
        with torch.cuda.stream(stream):
            ready.append((to_device(batch, device, images), stream.record_event()))
        if len(ready) > 1:
            yield _received(*ready.pop(0))
    for batch, copied in ready:
        yield _received(batch, copied)


def _received(batch: Any, copied: torch.cuda.Event) -> Any:
    """Let the current stream wait for the copy, and the allocator know that it uses the batch."""
    current = torch.cuda.current_stream()
    current.wait_event(copied)
    for tensor in tensors_of(batch):
        tensor.record_stream(current)
    return batch


def tensors_of(batch: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors in nested lists, tuples and dicts, in their order."""
    if isinstance(batch, torch.Tensor):
        yield batch
    elif isinstance(batch, dict | list | tuple):
        for item in batch.values() if isinstance(batch, dict) else batch:
            yield from tensors_of(item)


def free_memory() -> None:
    """Give back what objects that nobody holds any more have taken on the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def peak_memory(device: torch.device) -> int:
    """Return the bytes that torch has used at most on a GPU, or else those of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def memory_advice(error: Exception, device: torch.device, loader_args: Mapping[str, Any]) -> str:
    """Return what to tell of a torch.OutOfMemoryError: how much was used, by which batch size, and what to try."""
    peak = f"peak {torch.cuda.max_memory_allocated(device) / 2**30:.2f} GiB, " if device.type == "cuda" else ""
    batch_size = loader_args.get("batch_size", 1)
    smaller = f"--bs {batch_size // 2} with trainer.grad_accum_steps twice as large, or " if batch_size > 1 else ""
    return f"out of memory on {device}: {peak}batch_size {batch_size}: {error}\ntry {smaller}trainer.precision bf16"
