"""Pictures of curves and bars: ROC and precision-recall curves, error by the values of a column, importances."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from logger.canvas import BLUE, GREY, LIGHT, RIGHT, TOP, WIDTH, Axes, bounds, canvas, name_axes, write

Array = NDArray[Any]
COLOURS = (
    *((31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189)),
    *((140, 86, 75), (227, 119, 194), (127, 127, 127), (188, 189, 34), (23, 190, 207)),
)
ROW, NAMES = 22, 170  # pixels: a bar of `ranking`, and the room for its name
MAX_NAME = 24


def curves(
    title: str, lines: Sequence[tuple[str, Array, Array]], x_name: str, y_name: str, names_at: float
) -> Image.Image:
    """Draw up to ten `lines`, (name, x (n,), y (n,)) with values in [0, 1], each in a colour of its own.

    Their names begin where x is `names_at`.
    """
    image, draw = canvas(title)
    axes = Axes(image, (0, 1), (0, 1))
    for index, (name, x, y) in enumerate(lines):
        draw.line([axes(*point) for point in zip(x, y)], fill=COLOURS[index], width=2)
        at = axes(names_at, 0.45, 16 * index)
        draw.line((at[0], at[1], at[0] + 14, at[1]), fill=COLOURS[index], width=3)
        write(image, (at[0] + 20, at[1]), _short(name), anchor="l")
    name_axes(image, x_name, y_name)
    return image


def bars(title: str, names: Sequence[str], values: Array, counts: Array, x_name: str, y_name: str) -> Image.Image:
    """Draw `values`, (n,) of 0 or more, as bars above their names, each with the number of samples that it is of."""
    image, draw = canvas(title)
    high = float(values.max(initial=0.0))
    axes = Axes(image, (0, max(len(values), 1)), (0, 1.1 * high or 1.0), x_ticks=False)
    step = -(-len(names) // 10) or 1
    for place, (name, value, count) in enumerate(zip(names, values, counts)):
        draw.rectangle((*axes(place + 0.1, value), *axes(place + 0.9, 0)), fill=BLUE)
        write(image, axes(place + 0.5, value, -8), str(count), size=10)
        if place % step == 0:
            write(image, axes(place + 0.5, 0, 10), name[:9], size=10)
    name_axes(image, x_name, y_name)
    return image


def ranking(title: str, names: Sequence[str], means: Array, deviations: Array, x_name: str) -> Image.Image:
    """Draw `means` as bars below each other, with a line of `deviations` to both sides; both (n,)."""
    image, draw = canvas(title, height=TOP + ROW * len(names) + 40)
    ends = np.concatenate([means - deviations, means + deviations, np.zeros(1)])
    low, high = bounds(ends)

    def across(value: float) -> float:
        return NAMES + (value - low) / (high - low) * (WIDTH - NAMES - RIGHT)

    draw.line((across(0), TOP - 4, across(0), TOP + ROW * len(names)), fill=LIGHT, width=2)
    for row, (name, mean, deviation) in enumerate(zip(names, means, deviations)):
        y = TOP + ROW * (row + 0.5)
        draw.rectangle((min(across(0), across(mean)), y - 7, max(across(0), across(mean)), y + 7), fill=BLUE)
        draw.line((across(mean - deviation), y, across(mean + deviation), y), fill=GREY, width=2)
        write(image, (NAMES - 8, y), _short(name), anchor="r")
    for value in (low, high):
        write(image, (across(value), image.height - 32), f"{value:.3g}", anchor="l" if value == low else "r")
    write(image, ((NAMES + WIDTH) / 2, image.height - 14), x_name)
    return image


def _short(name: str) -> str:
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…"
