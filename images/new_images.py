"""New grey images, from files or memory, as the tensors that a model was trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from base import Chunk, NewInputs
from utils import ConfigError, DataError
from utils.errors import printable

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm"}
NAME = "file"  # of the column with the name of each image


class NewImages(NewInputs):
    """Images of one size: paths, PIL images, or uint8 arrays or tensors (H, W), (N, H, W) or (N, 1, H, W)."""

    def __init__(self, height: int, width: int, prepare: Callable[[Tensor], Tensor]) -> None:
        """`prepare` takes (N, H, W) uint8 and returns what the model takes. No image is resized."""
        self.height, self.width, self.prepare = height, width, prepare

    def __call__(self, values: Any) -> Any:
        """Return the inputs of one image or of many."""
        is_many = isinstance(values, list | tuple)
        images = [self._pixels(value, f"image {i}") for i, value in enumerate(values if is_many else [values])]
        if not images:
            raise DataError("there is no image")
        return self.prepare(torch.cat(images))

    def chunks(self, path: Path, keep: Sequence[str], chunk_size: int) -> Iterator[Chunk]:
        """Yield the images of a folder and those below it in the order of their names, or one; their names are kept."""
        import pyarrow as pa

        if keep:
            raise ConfigError(f"--id: images have no columns; the column {NAME!r} has their names")
        names = _image_files(path)
        for start in range(0, len(names), chunk_size):
            images, kept, mistakes = [], [], []
            for name in names[start : start + chunk_size]:
                try:
                    images.append(self._pixels(path / name, str(path / name)))
                    kept.append(name or path.name)
                except DataError as error:
                    mistakes.append(str(error))
            pixels = torch.cat(images) if images else torch.empty((0, self.height, self.width), dtype=torch.uint8)
            yield Chunk(self.prepare(pixels), pa.table({NAME: pa.array(kept, pa.string())}), mistakes)

    def _pixels(self, value: Any, where: str) -> Tensor:
        """Return (N, H, W) uint8; raise DataError where this is no image of the right size."""
        from PIL import Image  # comes with torchvision

        try:
            if isinstance(value, str | Path):
                with Image.open(value) as image:
                    value = _grey(image)
            elif isinstance(value, Image.Image):
                value = _grey(value)
            pixels = torch.as_tensor(value)
        except Exception as error:  # whatever a damaged file makes PIL raise
            reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
            raise DataError(f"{where}: cannot be read: {printable(reason)}") from None
        if pixels.dtype != torch.uint8:
            raise DataError(f"{where}: is {pixels.dtype}; pixels are uint8, 0 to 255".replace("torch.", ""))
        if pixels.ndim == 4 and pixels.shape[1] == 1:
            pixels = pixels.squeeze(1)
        pixels = pixels.unsqueeze(0) if pixels.ndim == 2 else pixels
        if pixels.ndim != 3 or pixels.shape[1:] != (self.height, self.width):
            raise DataError(f"{where}: is {list(pixels.shape)}; the model takes {self.height}x{self.width} pixels")
        return pixels


def _grey(image: Any) -> np.ndarray:
    """Return the pixels of a PIL image, (H, W) uint8; colours become grey."""
    if image.mode[0] in "IF":  # which PIL would cut off at 255
        raise ValueError(f"its pixels are of mode {image.mode}; 8 bits a channel are wanted")
    return np.array(image.convert("L"))


def _image_files(path: Path) -> list[str]:
    """Return the names of the images below `path`, or "" where it is a file. Raises DataError where there is none."""
    if not path.is_dir():
        if not path.is_file():
            raise DataError(f"{path}: {'is no regular file' if path.exists() else 'is missing'}")
        return [""]
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    if not files:
        raise DataError(f"{path}: has no image; known are {', '.join(sorted(SUFFIXES))}")
    return [file.relative_to(path).as_posix() for file in files]
