"""Finds shapes that torch would broadcast by mistake, and labels out of range, while a batch is tried."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from utils import ConfigError, DataError

ROOT = Path(__file__).resolve().parent.parent
TRANSFORMS = ROOT / "base" / "transforms.py"  # what is called from there gets single samples
ELEMENTWISE_LOSSES: set[Any] = {
    *(F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss, F.poisson_nll_loss, F.kl_div, F.soft_margin_loss),
    *(F.binary_cross_entropy, F.binary_cross_entropy_with_logits, F.hinge_embedding_loss),
    *(F.multilabel_margin_loss, F.multilabel_soft_margin_loss),
}
CLASS_LOSSES: set[Any] = {F.cross_entropy, F.nll_loss}


class ShapeWatch(TorchFunctionMode):
    """Watches the functions of torch that are called inside, whether by torch's losses and metrics or the project's.

    Raises ConfigError where a loss gets shapes that it would broadcast, or a single class, and DataError where it gets
    a label out of range. Warns where an operation broadcasts (N,) and (N, 1) to (N, N).
    """

    def __init__(self, logger: logging.Logger, indices: Tensor | None = None) -> None:
        """`indices` of the dataset begin with those of the batch; without them, labels are not checked."""
        super().__init__()
        self.logger = logger
        self.indices = indices
        self.labels: Tensor | None = None  # the last that a loss got, with the two below
        self.num_classes = 0
        self.ignore_index = 0
        self.is_empty = False  # whether a loss was a mean over nothing
        self._has_warned = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in ELEMENTWISE_LOSSES:
            self._check_same_shape(func.__name__, args[0], args[1])
        elif func in CLASS_LOSSES:
            self._check_classes(func.__name__, args[0], args[1], kwargs.get("weight"), kwargs.get("ignore_index", -100))
        result = func(*args, **kwargs)
        tensors = [arg for arg in args if isinstance(arg, Tensor)] if isinstance(args, tuple) else []
        if len(tensors) == 2 and isinstance(result, Tensor) and not self._has_warned:
            self._warn_of_pairs(tensors[0], tensors[1], result)
        return result

    def _check_same_shape(self, name: str, outputs: Tensor, targets: Tensor) -> None:
        self.is_empty |= outputs.numel() == 0
        if outputs.shape != targets.shape and targets.numel() != 1:
            raise _misfit(name, outputs, targets, "wanted: both of one shape")

    def _check_classes(
        self, name: str, scores: Tensor, labels: Tensor, weight: Tensor | None, ignore_index: int
    ) -> None:
        num_classes = scores.shape[min(1, scores.ndim - 1)]
        is_flat = scores.ndim == 1 and scores.shape == labels.shape  # torch would take it for one sample
        if num_classes == 1 or is_flat:
            why = "it would take samples for classes" if is_flat else "of one class it is always 0"
            raise _misfit(name, scores, labels, f"{why}; wanted: scores (N, C), C >= 2")
        if self.indices is not None and not labels.is_floating_point():  # those would be probabilities
            self.labels, self.num_classes, self.ignore_index = labels, num_classes, ignore_index
            self.check_labels(labels, self.indices)
            counted = labels[labels != ignore_index]
            self.is_empty |= not (torch.ones_like(counted) if weight is None else weight[counted]).any()

    def check_labels(self, labels: Tensor, indices: Tensor) -> None:
        """Raise DataError, naming the sample, where a label is not one of the classes that the loss has scores for."""
        is_bad = ((labels < 0) | (labels >= self.num_classes)) & (labels != self.ignore_index)
        if is_bad.any():
            first = int(is_bad.flatten().nonzero()[0])
            per_sample = max(1, labels.numel() // len(indices))  # of tokens or pixels, which may have been flattened
            raise DataError(
                f"sample {int(indices[first // per_sample])} of the dataset: label {int(labels.flatten()[first])}, "
                f"but the loss gets scores of {self.num_classes} classes: 0 to {self.num_classes - 1}"
            )

    def _warn_of_pairs(self, one: Tensor, other: Tensor, result: Tensor) -> None:
        """Warn where two operands of unequal dimensions were broadcast, each along the samples of the other."""
        n = one.shape[:1]
        is_pairs = one.ndim != other.ndim and n == other.shape[:1] and result.shape[:2] == n + n
        if is_pairs and result.numel() > max(one.numel(), other.numel()):
            frames = traceback.extract_stack()
            if any(Path(frame.filename) == TRANSFORMS for frame in frames):
                return
            self._has_warned = True
            self.logger.warning(
                f"{own_line(frames)}: {list(one.shape)} and {list(other.shape)} are broadcast to "
                f"{list(result.shape)}, every sample with every other: is that meant?"
            )


def _misfit(name: str, outputs: Tensor, targets: Tensor, why: str) -> ConfigError:
    return ConfigError(f"loss: {name} gets outputs {list(outputs.shape)} and targets {list(targets.shape)}; {why}")


def own_line(frames: Iterable[traceback.FrameSummary]) -> str:
    """Return the innermost line of the project outside preflight/, as in "model/loss.py:12", or ""."""
    paths = [(Path(frame.filename), frame.lineno) for frame in frames if "site-packages" not in frame.filename]
    own = [(path, line) for path, line in paths if path.is_relative_to(ROOT) and path.parent.name != "preflight"]
    return f"{own[-1][0].relative_to(ROOT).as_posix()}:{own[-1][1]}" if own else ""
