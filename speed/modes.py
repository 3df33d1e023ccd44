"""What a run sets for the whole process: the modes of torch, and how the C library keeps memory."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from typing import Any

import torch

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def set_process_modes(options: Any, device: torch.device) -> None:
    """Set what the `trainer` section's `options` say; call it before anything is computed."""
    if options.deterministic:
        # cuBLAS needs it before its first call: docs.nvidia.com/cuda/cublas, "Results reproducibility".
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(options.deterministic)
    # cuDNN tries its algorithms on each new shape and takes the fastest, which need not be the same one each time.
    torch.backends.cudnn.benchmark = not options.deterministic
    torch.autograd.set_detect_anomaly(options.detect_anomaly)
    torch.set_float32_matmul_precision("high" if options.precision == "tf32" else "highest")
    if options.keep_memory and device.type == "cpu":
        keep_freed_memory()


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees; only with glibc, since others have no such setting.

    By default glibc returns the activations of a step to the system, and the next step gets them back page by page,
    each filled with zeros: up to half the time of a small model's step. mallopt(3) describes the two settings.
    """
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_TRIM_THRESHOLD, -1)  # never return what is free at the end of the heap
        libc.mallopt(M_MMAP_MAX, 0)  # nor keep large blocks outside the heap, where each is returned when it is freed
