"""The canvas of figures: title, axes with round numbers, colours; and its PNG."""

from __future__ import annotations

import io
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Array = NDArray[Any]
Colour = tuple[int, int, int] | int
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
        self, image: Image.Image, x: tuple[float, float], y: tuple[float, float], x_ticks: bool = True
    ) -> None:
        self._x, self._y = x, y
        draw = ImageDraw.Draw(image)
        for value in ticks(*y):
            _, at = self(x[0], value)
            draw.line((LEFT, at, WIDTH - RIGHT, at), fill=LIGHT)
            write(image, (LEFT - 6, at), f"{value:.4g}", anchor="r")
        for value in ticks(*x) if x_ticks else ():
            at, _ = self(value, y[0])
            draw.line((at, TOP, at, HEIGHT - BOTTOM), fill=LIGHT)
            write(image, (at, HEIGHT - BOTTOM + 10), f"{value:.4g}")

    def __call__(self, x: float, y: float, below: float = 0) -> tuple[float, float]:
        """Return the pixel of a point, or the one `below` it."""
        share_x = (x - self._x[0]) / (self._x[1] - self._x[0])
        share_y = (y - self._y[0]) / (self._y[1] - self._y[0])
        across = LEFT + share_x * (WIDTH - LEFT - RIGHT)
        return across, HEIGHT - BOTTOM - share_y * (HEIGHT - TOP - BOTTOM) + below


def canvas(title: str, width: int = WIDTH, height: int = HEIGHT) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """Return an empty figure with its title, and what draws on it."""
    image = Image.new("RGB", (max(width, 260), height), WHITE)
    write(image, (LEFT, 20), title, BLACK, 15, "l")
    return image, ImageDraw.Draw(image)


def name_axes(image: Image.Image, x: str, y: str) -> None:
    """Write what the axes are below and left of a figure."""
    write(image, ((LEFT + image.width - RIGHT) / 2, image.height - 14), x)
    name = Image.new("RGB", (120, 16), WHITE)
    write(name, (60, 8), y)
    image.paste(name.rotate(90, expand=True), (4, (TOP + image.height - BOTTOM) // 2 - 60))


def write(
    image: Image.Image, at: tuple[float, float], text: str, colour: Colour = GREY, size: int = 12, anchor: str = "m"
) -> None:
    """Write a line beside the point `at`, which is the left (l), middle (m) or right (r) of it, at half its height."""
    mask = _mask(text, size)
    left = at[0] - mask.width * {"l": 0, "m": 0.5, "r": 1}[anchor]
    image.paste(colour, (round(left), round(at[1] - mask.height / 2)), mask)


@lru_cache(maxsize=4096)  # numbers and names come again in every figure, and rendering them takes most of its time
def _mask(text: str, size: int) -> Image.Image:
    font: Any = _font(size)
    mask = Image.new("L", (max(round(font.getlength(text)), 1), sum(font.getmetrics())))
    ImageDraw.Draw(mask).text((0, 0), text, 255, font)
    return mask


@cache
def _font(size: int) -> Any:
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
