"""Choosing the device and moving batches to it."""

from __future__ import annotations

import gc
import logging
import os
import platform
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from utils.errors import ConfigError
from utils.failures import last_line
from utils.nested import map_tensors

CGROUPS = Path("/sys/fs/cgroup")
DEVICE_PATTERN = r"auto|cpu|mps|cuda|(cuda:)?\d+"


def prepare_device(n_gpu_use: int, device: str = "auto") -> tuple[torch.device, list[int]]:
    """Return the device to train on and the indices of its GPUs ([] without one).

    `device` is auto (cuda, then mps, then cpu), cpu, mps, cuda, cuda:N or N; `n_gpu_use=0` makes auto mean cpu.
    Raises ConfigError where the device is unknown or not there, or torchrun has started several processes.
    """
    num_processes = int(os.environ.get("WORLD_SIZE") or 1)
    if num_processes > 1 and not dist.is_initialized():  # each would train a whole run of its own
        raise ConfigError(
            f"torchrun started {num_processes} processes, but this script is for one; train.py lets several train "
            f"together, by `with launched():` around its main"
        )
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
    logging.getLogger("device").info("no GPU here: using the CPU")
    return "cpu"


@cache
def processor_name(device: torch.device) -> str:
    """Return the name of the GPU or CPU that computes on `device`, such as "NVIDIA H100" or "AMD EPYC"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"))
    except OSError:  # not Linux
        found = None
    return found.group(1).strip() if found else platform.processor() or platform.machine()


def to_device(batch: Any, device: torch.device, images: torch.memory_format = torch.contiguous_format) -> Any:
    """Move the tensors in `batch`, of any nesting, to the device; 4-D ones in the memory format `images`."""

    def move(tensor: Tensor) -> Tensor:
        is_laid_out = tensor.ndim != 4 or tensor.is_contiguous(memory_format=images)  # images of one channel are both
        memory_format = torch.preserve_format if is_laid_out else images
        return tensor.to(device, non_blocking=True, memory_format=memory_format)

    return map_tensors(move, batch)


def free_memory() -> None:
    """Give back what objects that nobody holds any more have taken on the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def memory_limit() -> int | None:
    """Return how many bytes of memory this process may use: those of the machine, or of its container (cgroup).

    None where Python has no way to ask (Windows).
    """
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")] if hasattr(os, "sysconf") else []
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():  # "0::/a/b", or of version 1 "4:memory:/a/b"
            _, controller, path = line.split(":", 2)
            if controller not in ("", "memory"):
                continue
            root, name = (CGROUPS / "memory", "memory.limit_in_bytes") if controller else (CGROUPS, "memory.max")
            group = root / path.lstrip("/")  # which a container may not see, unlike its own at the root
            for folder in (group, *group.parents):
                with suppress(OSError, ValueError):  # "max"
                    limits.append(int((folder / name).read_text()))
    return min(limits, default=None)


def peak_memory(device: torch.device) -> int | None:
    """Return the bytes that torch has used at most on a GPU, or else those of the process (None on Windows)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def memory_advice(error: Exception, device: torch.device, loader_args: Mapping[str, Any]) -> str:
    """Return the message for missing memory: how much was used, by which batch size, and what to try."""
    peak = f"peak {torch.cuda.max_memory_allocated(device) / 2**30:.2f} GiB, " if device.type == "cuda" else ""
    batch_size = loader_args.get("batch_size", 1)
    smaller = f"--bs {batch_size // 2} with trainer.grad_accum_steps twice as large, or " if batch_size > 1 else ""
    what = f"out of memory on {device}: {peak}batch_size {batch_size}: {last_line(error)}"
    return f"{what}\ntry {smaller}trainer.precision bf16"
