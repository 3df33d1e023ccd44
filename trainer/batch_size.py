"""Finding the largest batch that fits in memory, for `"batch_size": "auto"`."""

from __future__ import annotations

import os

import torch

from trainer.trainer import Trainer
from utils.device import free_memory, peak_memory

PROBE = (
    2**31
)  # the batch size that the trainer to try with is built with: one step an epoch, which no schedule outlasts
# Libraries tell of missing memory in plain RuntimeErrors too: torch on a CPU, oneDNN, C++; cuDNN, cuBLAS, CUDA.
MESSAGES = (
    *("DefaultCPUAllocator", "could not create a", "bad_alloc"),
    *("unable to find an engine", "CUDNN_STATUS", "CUBLAS_STATUS_ALLOC_FAILED", "out of memory"),
)


def largest_batch_size(trainer: Trainer) -> int:
    """Return the largest power of two, at most the number of training samples, with which training steps fit in memory.

    Doubles until a step does not fit; on a CPU, where memory that is promised may not be there, until the next one
    would take most of what there is. The trainer must not be used to train afterwards.
    """
    size, physical = 1, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with torch.compiler.set_stance("force_eager"):  # compiling for each size would take minutes
        while 2 * size <= trainer.data_loader.n_samples and _fits(trainer, 2 * size):
            size *= 2
            if trainer.device.type == "cpu" and 2 * peak_memory(trainer.device) > 0.8 * physical:
                break
    return size


def _fits(trainer: Trainer, batch_size: int) -> bool:
    """Whether two training steps can be made: the second has the optimizer's state beside it."""
    try:
        [batch] = trainer._on_device([[trainer.data_loader.peek(batch_size)]])
        for _ in range(2):
            loss, _ = trainer._train_step(batch)
        loss.item()  # waits for the device
    except (RuntimeError, MemoryError) as error:
        is_memory = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not is_memory and not any(text in str(error) for text in MESSAGES):
            raise
        return False
    finally:
        free_memory()
    return True
