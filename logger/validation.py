"""Draws what a model gave for a sample of the validation split, into TensorBoard and as PNG files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from logger import figures
from logger.canvas import png
from logger.pictures import picture

Array = NDArray[Any]
MAX_CURVES = 10  # classes that a precision-recall curve is drawn for


class Sample(NamedTuple):
    """Outputs and targets of a classifier, whose targets are class indices, or of a regression."""

    outputs: Array  # (N, C) float32: of a classifier logits or log-probabilities
    targets: Array  # (N,) int64 or (N, C) float32
    images: dict[str, tuple[Array, Array, Array]]  # by name: images (n, 1 or 3, H, W), their outputs and targets


def draw_validation(writer: SummaryWriter | None, step: int, sample: Sample, directory: Path | None) -> None:
    """Draw the figures of `sample` as images of `step`, and into `directory` where given. Raises OSError."""
    outputs, targets = without_ignored(sample.outputs, sample.targets)
    if len(outputs) == 0:
        return
    if directory is not None:
        directory.mkdir(exist_ok=True)
    for name, image in chain(output_figures(outputs, targets), _grids(sample.images)):
        data = png(image)
        if writer is not None:
            writer._get_file_writer().add_summary(picture(f"validation/{name}", image, data), step)
        if directory is not None:
            temp = directory / f".{name}.{os.getpid()}.tmp"
            temp.write_bytes(data)
            os.replace(temp, directory / f"{name}.png")
    if writer is not None and targets.ndim == 1 and outputs.shape[1] <= MAX_CURVES:
        probabilities = softmax(outputs)
        for index in range(outputs.shape[1]):
            writer.add_pr_curve(f"precision_recall/{index}", targets == index, probabilities[:, index], step)


def without_ignored(outputs: Array, targets: Array) -> tuple[Array, Array]:
    """Return the samples of outputs and targets, as in `Sample`, whose class the model has: a loss ignores others."""
    is_known = (targets >= 0) & (targets < outputs.shape[1]) if targets.ndim == 1 else slice(None)
    return outputs[is_known], targets[is_known]


def output_figures(outputs: Array, targets: Array) -> Iterator[tuple[str, Image.Image]]:
    """Yield what there is to draw of outputs and targets, as in `Sample`, by name."""
    if targets.ndim == 2:
        yield "predicted_vs_true", figures.predicted_against_true(outputs, targets)
        yield "residuals", figures.residuals(outputs, targets)
    elif outputs.shape[1] <= figures.MAX_CLASSES:
        counts = figures.confusion(outputs.argmax(axis=1), targets, outputs.shape[1])
        yield "confusion_matrix", figures.confusion_matrix(counts)
        yield "per_class", figures.class_bars(counts)


def _grids(images: dict[str, tuple[Array, Array, Array]]) -> Iterator[tuple[str, Image.Image]]:
    for name, (pixels, outputs, targets) in images.items():
        if targets.ndim == 1:
            rows = zip(targets, outputs.argmax(axis=1), softmax(outputs).max(axis=1))
            captions = [f"true {true}\npredicted {predicted} ({share:.0%})" for true, predicted, share in rows]
        else:
            values = zip(targets[:, 0], outputs[:, 0])
            captions = [f"true {true:.3g}\npredicted {predicted:.3g}" for true, predicted in values]
        yield name, figures.sample_grid(pixels, captions)


def softmax(scores: Array) -> Array:
    """Return the probabilities, (N, C) in [0, 1], of logits or log-probabilities."""
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
