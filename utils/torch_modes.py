"""The global modes of torch that a config turns on: for speed, or to find mistakes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch


def set_torch_modes(options: Mapping[str, Any]) -> None:
    """Set torch's global modes as the trainer section says: `deterministic`, `detect_anomaly`, `precision`."""
    if options["deterministic"]:
        # cuBLAS needs it before its first call: docs.nvidia.com/cuda/cublas, "Results reproducibility".
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(options["deterministic"])
    # cuDNN tries its algorithms on each new shape and takes the fastest, which need not be the same one each time.
    torch.backends.cudnn.benchmark = not options["deterministic"]
    torch.autograd.set_detect_anomaly(options["detect_anomaly"])
    torch.set_float32_matmul_precision("high" if options["precision"] == "tf32" else "highest")
