"""A bounded sample of what a validation gave, and the inputs that it did worst and best on; drawn as figures."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from logger.validation import Sample
from utils.nested import tensors_of

MAX_SAMPLES, MAX_NUMBERS, NUM_IMAGES = 10_000, 1 << 22, 16
MAX_WAITING, MAX_WAITING_BYTES = 128, 64 << 20
MAX_COLUMNS = 16
Array = NDArray[Any]


class Predictions:
    """Collects batches of validation on their device, for which it waits once in 64 MB of images.

    A classifier is what gives floating outputs (N, C) for integer targets (N,), a regression what gives outputs of the
    shape of floating targets, (N,) or (N, up to 16); of anything else nothing is kept. At most 10,000 samples are:
    every batch, then every second, every fourth and so on, so that those that are kept are spread over all. The worst
    and best samples are those of highest and lowest cross entropy, or squared error: a loss function gives the mean of
    a batch alone.
    """

    def __init__(self) -> None:
        self._kept: list[tuple[Tensor, Tensor]] = []
        self._num_batches, self._stride, self._num_samples, self._num_numbers = 0, 1, 0, 0
        self._waiting: list[tuple[Tensor, Tensor, Tensor]] = []  # images, outputs, targets
        self._waiting_bytes = 0
        self._extremes: dict[str, list[Tensor]] = {}

    @torch.no_grad()
    def add(self, inputs: Any, outputs: Any, targets: Any) -> None:
        """Add a batch: inputs of any nesting, whose first tensor (N, 1 or 3, H, W) is an image; outputs and targets."""
        if not _is_drawn(outputs, targets):
            return
        self._num_batches += 1
        if (self._num_batches - 1) % self._stride:
            return
        outputs = outputs.detach().clone()  # which a compiled model may write over
        if outputs.ndim == 1:
            outputs, targets = outputs.unsqueeze(1), targets.unsqueeze(1)
        self._kept.append((outputs, targets))
        self._num_samples += len(outputs)
        self._num_numbers += outputs.numel()
        while (self._num_samples > MAX_SAMPLES or self._num_numbers > MAX_NUMBERS) and len(self._kept) > 1:
            self._kept, self._stride = self._kept[::2], 2 * self._stride
            self._num_samples = sum(len(outputs) for outputs, _ in self._kept)
            self._num_numbers = sum(outputs.numel() for outputs, _ in self._kept)
        image = next(images_of(inputs), None)
        if image is not None and len(image) == len(outputs):
            self._waiting.append((image, outputs, targets))
            self._waiting_bytes += image.nbytes
            if len(self._waiting) == MAX_WAITING or self._waiting_bytes > MAX_WAITING_BYTES:
                self._find_extremes()

    def sample(self) -> Sample | None:
        """Return what was collected; None where that is nothing. Waits for the device."""
        if not self._kept:
            return None
        self._find_extremes()
        outputs, targets = (torch.cat(part) for part in zip(*self._kept))
        rows = {name: [_array(part) for part in parts] for name, parts in self._extremes.items()}
        return Sample(_array(outputs), _array(targets), {name: (x, y, t) for name, (_, x, y, t) in rows.items()})

    def _find_extremes(self) -> None:
        """Take the samples of highest and lowest loss out of those that wait and those so far."""
        if not self._waiting:
            return
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        outputs, targets = torch.cat([outputs for _, outputs, _ in waiting]), torch.cat([row[2] for row in waiting])
        losses, ends = _losses(outputs, targets), list(accumulate(len(images) for images, _, _ in waiting))
        for name, is_worst in (("worst", True), ("best", False)):
            chosen = losses.topk(min(NUM_IMAGES, len(losses)), largest=is_worst).indices
            places = [(index, bisect_right(ends, index)) for index in chosen.tolist()]
            images = torch.stack([waiting[batch][0][index - ends[batch]] for index, batch in places])  # from its end
            rows = [losses[chosen], images, outputs[chosen], targets[chosen]]
            if name in self._extremes:
                rows = [torch.cat(pair) for pair in zip(self._extremes[name], rows)]
            best = rows[0].topk(min(NUM_IMAGES, len(rows[0])), largest=is_worst).indices
            self._extremes[name] = [part[best] for part in rows]


def images_of(inputs: Any) -> Iterator[Tensor]:
    """Yield the tensors in `inputs`, of any nesting, that are images: (N, 1 or 3, H, W)."""
    return (tensor for tensor in tensors_of(inputs) if tensor.ndim == 4 and tensor.shape[1] in (1, 3))


def _is_drawn(outputs: Any, targets: Any) -> bool:
    if not (isinstance(outputs, Tensor) and isinstance(targets, Tensor) and outputs.is_floating_point()):
        return False
    if targets.is_floating_point():
        is_table = outputs.ndim == 1 or (outputs.ndim == 2 and outputs.shape[1] <= MAX_COLUMNS)
        return outputs.shape == targets.shape and is_table and len(outputs) > 0
    is_classes = targets.ndim == 1 and targets.dtype != torch.bool
    return is_classes and outputs.ndim == 2 and outputs.shape[1] > 1 and len(outputs) == len(targets) > 0


def _losses(outputs: Tensor, targets: Tensor) -> Tensor:
    """(N,) float32: of each sample the cross entropy of logits or log-probabilities, or the mean squared error."""
    if targets.is_floating_point():
        return (outputs - targets).float().square().mean(dim=1)
    classes = targets.long().clamp(0, outputs.shape[1] - 1)  # an ignored target is none
    return F.cross_entropy(outputs.float(), classes, reduction="none")


def _array(tensor: Tensor) -> Array:
    dtype = torch.float32 if tensor.is_floating_point() else torch.int64
    return np.asarray(tensor.to("cpu", dtype).numpy())
