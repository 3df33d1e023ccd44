"""Pictures of what a model predicts: confusion matrix, bars per class, predicted against true, residuals, samples.

Drawn by Pillow, which TensorBoard's images need anyway. The thread of the logs draws while training goes on and holds
Python's lock for it, so the time counts: matplotlib takes about thirty times as long. All arrays are NumPy's, since a
thread that computes with torch would slow training down.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from logger.canvas import (
    BLACK,
    BLUE,
    BOTTOM,
    LEFT,
    LIGHT,
    ORANGE,
    RIGHT,
    TOP,
    WHITE,
    Axes,
    bounds,
    canvas,
    name_axes,
    write,
)

Array = NDArray[Any]
MAX_CLASSES, MAX_LABELLED, MAX_BARS, MAX_POINTS, NUM_BINS = 100, 20, 24, 2000, 40
CELL, CAPTION = 112, 36  # pixels: a sample, and the two lines below it


def confusion(predicted: Array, true: Array, num_classes: int) -> Array:
    """(C, C) int64: how many samples of each true class (row) were predicted as each class (column)."""
    return np.bincount(true * num_classes + predicted, minlength=num_classes**2).reshape(num_classes, num_classes)


def confusion_matrix(counts: Array) -> Image.Image:
    """Draw `counts`, (C, C) int64 as `confusion` gives them; the colour is a cell's share of its row."""
    num, side = len(counts), max(420 // len(counts), 4)
    shares = counts / counts.sum(axis=1, keepdims=True).clip(1)
    image, draw = canvas("confusion matrix", LEFT + num * side + RIGHT, TOP + num * side + BOTTOM)
    colours = (np.array(WHITE) + shares[..., None] * (np.array(BLUE) - WHITE)).astype(np.uint8)
    image.paste(Image.fromarray(colours).resize((num * side, num * side), Image.Resampling.NEAREST), (LEFT, TOP))
    draw.rectangle((LEFT - 1, TOP - 1, LEFT + num * side, TOP + num * side), outline=LIGHT)
    for row, column in np.argwhere(counts > 0) if num <= MAX_LABELLED else ():
        at = (LEFT + (column + 0.5) * side, TOP + (row + 0.5) * side)
        fill = WHITE if shares[row, column] > 0.5 else BLACK
        write(image, at, str(counts[row, column]), fill)
    for index in range(0, num, -(-num // MAX_LABELLED)):
        write(image, (LEFT - 6, TOP + (index + 0.5) * side), str(index), anchor="r")
        write(image, (LEFT + (index + 0.5) * side, TOP + num * side + 10), str(index))
    name_axes(image, "predicted class", "true class")
    return image


def class_bars(counts: Array) -> Image.Image:
    """Draw recall and precision of each class from `counts`, (C, C) int64; of many classes those of lowest recall."""
    right = counts.diagonal()
    recall, precision = right / counts.sum(axis=1).clip(1), right / counts.sum(axis=0).clip(1)
    there = np.flatnonzero(counts.sum(axis=1))
    shown = np.sort(there[np.argsort(recall[there], kind="stable")][:MAX_BARS])
    title = "recall and precision per class" + (" (lowest recall)" if len(shown) < len(there) else "")
    image, draw = canvas(title)
    axes = Axes(image, (0, len(shown)), (0, 1), x_ticks=False)
    for place, index in enumerate(shown):
        for values, colour, offset in ((recall, BLUE, 0.12), (precision, ORANGE, 0.5)):
            draw.rectangle((*axes(place + offset, values[index]), *axes(place + offset + 0.38, 0)), fill=colour)
        write(image, axes(place + 0.5, 0, 10), str(index))
    for text, colour, x in (("recall", BLUE, 440), ("precision", ORANGE, 510)):
        draw.rectangle((x - 14, 15, x - 4, 25), fill=colour)
        write(image, (x, 20), text, anchor="l")
    name_axes(image, "class", "share")
    return image


def predicted_against_true(outputs: Array, targets: Array) -> Image.Image:
    """Draw `outputs` against `targets`, both (N, K) float; a perfect model's points lie on the line."""
    image, draw = canvas("predicted against true")
    outputs, targets = _finite(outputs.ravel(), targets.ravel())
    low, high = bounds(np.concatenate([outputs, targets]))
    axes = Axes(image, (low, high), (low, high))
    draw.line((*axes(low, low), *axes(high, high)), fill=ORANGE, width=2)
    step = -(-len(outputs) // MAX_POINTS) or 1
    for true, predicted in zip(targets[::step], outputs[::step]):
        x, y = axes(true, predicted)
        draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=BLUE)
    name_axes(image, "true", "predicted")
    return image


def residuals(outputs: Array, targets: Array) -> Image.Image:
    """Draw how often `outputs` - `targets`, both (N, K) float, has which value."""
    outputs, targets = _finite(outputs.ravel(), targets.ravel())
    errors = outputs - targets
    counts, edges = np.histogram(errors, NUM_BINS, bounds(errors))
    mean, std = (errors.mean(), errors.std()) if len(errors) else (0.0, 0.0)
    image, draw = canvas(f"residuals: mean {mean:.3g}, standard deviation {std:.3g}")
    axes = Axes(image, (edges[0], edges[-1]), (0, max(counts.max(), 1)))
    for count, left, right in zip(counts, edges, edges[1:]):
        if count:
            draw.rectangle((*axes(left, count), *axes(right, 0)), fill=BLUE, outline=WHITE)
    if edges[0] < 0 < edges[-1]:
        draw.line((*axes(0, 0), *axes(0, counts.max())), fill=ORANGE, width=2)
    name_axes(image, "predicted - true", "samples")
    return image


def sample_grid(images: Array, captions: Sequence[str], num_columns: int = 8) -> Image.Image:
    """Draw `images`, (N, 1 or 3, H, W) float of any range, each above its caption, which may have two lines."""
    num_rows, is_grey = -(-len(images) // num_columns), images.shape[1] == 1
    size = (num_columns * CELL, num_rows * (CELL + CAPTION))
    grid = Image.new("L" if is_grey else "RGB", size, WHITE[0] if is_grey else WHITE)
    for index, (pixels, caption) in enumerate(zip(_as_bytes(images), captions)):
        row, column = divmod(index, num_columns)
        x, y = column * CELL, row * (CELL + CAPTION)
        height, width = pixels.shape[:2]
        shown = [max(round(side * (CELL - 4) / max(height, width)), 1) for side in (width, height)]
        how = Image.Resampling.NEAREST if max(height, width) < CELL else Image.Resampling.BILINEAR
        grid.paste(Image.fromarray(pixels).resize(shown, how), (x, y))
        for number, line in enumerate(caption.splitlines()):
            write(grid, (x + CELL / 2, y + CELL + 4 + 14 * number), line, BLACK[0] if is_grey else BLACK)
    return grid


def _finite(one: Array, other: Array) -> tuple[Array, Array]:
    """Return the pairs, as float64, of which both are finite."""
    kept = np.isfinite(one) & np.isfinite(other)
    return one[kept].astype(np.float64), other[kept].astype(np.float64)


def _as_bytes(images: Array) -> list[Array]:
    """Return (H, W) or (H, W, 3) uint8 of each of (N, 1 or 3, H, W), all stretched by one range to [0, 255]."""
    images = np.nan_to_num(images)
    low, high = float(images.min()), float(images.max())
    scaled = ((images - low) * (255 / ((high - low) or 1))).astype(np.uint8)
    return [image[0] if len(image) == 1 else image.transpose(1, 2, 0) for image in scaled]
