"""New images, from files or memory, as the tensors that validation gave the model in training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from base import Chunk, NewInputs, TensorBatches, TransformedBatches
from images.files import EXTENSIONS, MODES, decode, decoding, fitted
from utils import ConfigError, DataError
from utils.errors import printable

NAME = "file"  # of the column with the name of each image
WHERE = "data_loader.args.valid_transform"


class NewImages(NewInputs):
    """Images of one size: paths, PIL images, or uint8 arrays or tensors (N, C, H, W), (C, H, W), or grey (N, H, W)."""

    def __init__(
        self,
        size: tuple[int, int],
        channels: int,
        finish: Callable[[Tensor], Tensor],
        transforms: Sequence[nn.Module] = (),
        *,
        resizes: bool = True,
    ) -> None:
        """`transforms` take an image (C, *size) uint8 each, and `finish` a batch of what they return.

        Paths and PIL images are fitted to `size` (height, width) as `decode` does; else, as arrays, they must have it.
        """
        self.size, self.channels, self.finish, self.transforms = size, channels, finish, transforms
        self.resizes = resizes
        self._lock = Lock()  # transforms seed the random numbers of the process, decoding silences its warnings

    def __call__(self, values: Any) -> Any:
        """Return the inputs of one image or of many."""
        is_many = isinstance(values, list | tuple)
        images = [self._pixels(value, f"image {i}") for i, value in enumerate(values if is_many else [values])]
        if not images:
            raise DataError("there is no image")
        return self._prepared(torch.cat(images))

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
            # Where all are damaged, a black one says what shape the inputs have.
            pixels = torch.cat(images or [torch.zeros((1, self.channels, *self.size), dtype=torch.uint8)])
            yield Chunk(self._prepared(pixels)[: len(kept)], pa.table({NAME: pa.array(kept, pa.string())}), mistakes)

    def _prepared(self, pixels: Tensor) -> Tensor:
        """Return what the model takes of (N, C, *size) uint8."""
        if not self.transforms:
            return self.finish(pixels)
        batches = TensorBatches(pixels, torch.zeros(len(pixels)))
        with self._lock:
            return TransformedBatches(batches, self.transforms, WHERE, self.finish).__getitems__([*range(len(pixels))])[
                0
            ]

    def _pixels(self, value: Any, where: str) -> Tensor:
        """Return (N, C, *size) uint8; raise DataError where this is no image, or none of the right size."""
        if isinstance(value, str | Path) and self.resizes:
            with self._lock, decoding():
                return torch.tensor(decode(Path(value), self.size, self.channels)).unsqueeze(0)
        try:
            if isinstance(value, str | Path):
                with Image.open(value) as image:
                    value = self._array(image)
            elif isinstance(value, Image.Image):
                value = self._array(value)
            pixels = torch.as_tensor(value)
        except Exception as error:  # whatever a damaged file makes PIL raise
            reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
            raise DataError(f"{where}: cannot be read: {printable(reason)}") from None
        if pixels.dtype != torch.uint8:
            raise DataError(f"{where}: is {pixels.dtype}; pixels are uint8, 0 to 255".replace("torch.", ""))
        if pixels.ndim == 2 or (pixels.ndim == 3 and self.channels > 1):
            pixels = pixels.unsqueeze(0)
        if pixels.ndim == 3:
            pixels = pixels.unsqueeze(1)
        if pixels.ndim != 4 or pixels.shape[1:] != (self.channels, *self.size):
            wanted = "x".join(map(str, self.size if self.channels == 1 else (self.channels, *self.size)))
            hint = "; PIL images are resized" if self.resizes else ""
            raise DataError(f"{where}: is {list(pixels.shape[1:])}; the model takes {wanted} pixels{hint}")
        return pixels

    def _array(self, image: Image.Image) -> np.ndarray:
        """Return the pixels of a PIL image, (C, H, W) uint8; colours become grey where the model takes these."""
        if self.resizes:
            return fitted(image, self.size, self.channels).copy()
        if image.mode[0] in "IF":  # which PIL would cut off at 255
            raise ValueError(f"its pixels are of mode {image.mode}; 8 bits a channel are wanted")
        pixels = np.array(image.convert(MODES[self.channels]))
        return pixels.reshape(*pixels.shape[:2], self.channels).transpose(2, 0, 1)


def _image_files(path: Path) -> list[str]:
    """Return the names of the images below `path`, or "" where it is a file. Raises DataError where there is none."""
    if not path.is_dir():
        if not path.is_file():
            raise DataError(f"{path}: {'is no regular file' if path.exists() else 'is missing'}")
        return [""]
    found = (file for file in path.rglob("*") if file.suffix.lower() in EXTENSIONS and not file.name.startswith("."))
    files = sorted(file for file in found if file.is_file())
    if not files:
        raise DataError(f"{path}: has no image; known are {', '.join(sorted(EXTENSIONS))}")
    return [file.relative_to(path).as_posix() for file in files]
