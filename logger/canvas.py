"""The paper that figures are drawn on: title, axes with round numbers, colours; and the PNG that they become."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Array = NDArray[Any]
WHITE, BLACK, GREY, LIGHT = (255, 255, 255), (32, 33, 36), (95, 99, 104), (225, 228, 232)
BLUE, ORANGE = (31, 119, 180), (255, 127, 14)
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 600, 440, 72, 40, 16, 48  # pixels: a figure, and its margins


def png(image: Image.Image) -> bytes:
    """Return the image as a PNG file."""
    file = io.BytesIO()
    image.save(file, format="PNG", compress_level=3)
    return file.getvalue()


class Axes:
    """Maps values to pixels of a figure, and draws its frame with ticks."""

    def __init__(
        self, draw: ImageDraw.ImageDraw, x: tuple[float, float], y: tuple[float, float], x_ticks: bool = True
    ) -> None:
        self._x, self._y = x, y
        for value in ticks(*y):
            _, at = self(x[0], value)
            draw.line((LEFT, at, WIDTH - RIGHT, at), fill=LIGHT)
            draw.text((LEFT - 6, at), f"{value:.4g}", GREY, font(12), anchor="rm")
        for value in ticks(*x) if x_ticks else ():
            at, _ = self(value, y[0])
            draw.line((at, TOP, at, HEIGHT - BOTTOM), fill=LIGHT)
            draw.text((at, HEIGHT - BOTTOM + 10), f"{value:.4g}", GREY, font(12), anchor="mm")

    def __call__(self, x: float, y: float, below: float = 0) -> tuple[float, float]:
        """Return the pixel of a point, or the one `below` it."""
        share_x = (x - self._x[0]) / (self._x[1] - self._x[0])
        share_y = (y - self._y[0]) / (self._y[1] - self._y[0])
        across = LEFT + share_x * (WIDTH - LEFT - RIGHT)
        return across, HEIGHT - BOTTOM - share_y * (HEIGHT - TOP - BOTTOM) + below


def canvas(title: str, width: int = WIDTH, height: int = HEIGHT) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """Return an empty figure with its title, and what draws on it."""
    image = Image.new("RGB", (max(width, 260), height), WHITE)
    draw = ImageDraw.Draw(image)
    draw.text((LEFT, 20), title, BLACK, font(15), anchor="lm")
    return image, draw


def name_axes(image: Image.Image, draw: ImageDraw.ImageDraw, x: str, y: str) -> None:
    """Write what the axes are below and left of a figure."""
    small = font(12)
    draw.text(((LEFT + image.width - RIGHT) / 2, image.height - 14), x, GREY, small, anchor="mm")
    name = Image.new("RGB", (120, 16), WHITE)
    ImageDraw.Draw(name).text((60, 8), y, GREY, small, anchor="mm")
    image.paste(name.rotate(90, expand=True), (4, (TOP + image.height - BOTTOM) // 2 - 60))


def font(size: int) -> Any:
    """Return Pillow's own font, so that a figure looks the same everywhere."""
    return ImageFont.load_default(size)


def ticks(low: float, high: float) -> Array:
    """Return about six round numbers in [low, high]."""
    rough = (high - low) / 7
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(step for step in (1, 2, 2.5, 5, 10) if step * power >= rough * 0.999) * power
    values = np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step
    return values + 0.0  # no -0


def bounds(values: Array) -> tuple[float, float]:
    """Return the range of `values`, a little wider; [-1, 1] of none."""
    low, high = (float(values.min()), float(values.max())) if len(values) else (-1.0, 1.0)
    margin = 0.03 * (high - low) or abs(low) * 0.1 or 1.0
    return low - margin, high + margin
