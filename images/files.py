"""Image files in a directory for each class: which there are, the split by name, and decoding one of them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from utils import DataError
from utils.errors import printable

EXTENSIONS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # of Pillow, by the number of channels
DRAFT = 2  # a JPEG is decoded at the smallest of its scales that is this many times as large as what is asked for


class ImageFiles(NamedTuple):
    """The image files under `root`, by class and then by name."""

    root: Path
    names: list[str]  # relative to root, such as "cat/1.jpg"
    labels: list[int]  # of each, its class
    class_names: list[str]

    def without(self, left_out: set[int]) -> ImageFiles:
        """Return all files but those at these positions."""
        kept = [i for i in range(len(self.names)) if i not in left_out]
        names, labels = [self.names[i] for i in kept], [self.labels[i] for i in kept]
        return self._replace(names=names, labels=labels)


def find_images(root: Path, class_names: list[str] | None = None) -> ImageFiles:
    """Return the images in the directories of `root`, each a class, and in the directories in these.

    `class_names` are the classes that there may be, by default all, sorted. Hidden files, and those with other
    extensions than EXTENSIONS, are left out. Raises DataError where there is no class, or no image in one.
    """
    try:
        folders = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
        unknown = sorted(set(folders) - set(folders if class_names is None else class_names))
        if unknown:
            raise DataError(f"{root}: {printable(unknown[0])!r} is no class of the training images")
        files = ImageFiles(root, [], [], folders if class_names is None else class_names)
        for folder in folders:
            paths = (path for path in (root / folder).rglob("*") if path.suffix.lower() in EXTENSIONS)
            names = sorted(path.relative_to(root).as_posix() for path in paths if not path.name.startswith("."))
            if not names:
                raise DataError(f"{root / folder}: no images; their names end with {', '.join(sorted(EXTENSIONS))}")
            files.names.extend(names)
            files.labels.extend([files.class_names.index(folder)] * len(names))
    except OSError as error:
        raise DataError(f"{root}: cannot be read: {error.strerror}") from None
    if not files.names:
        raise DataError(f"{root}: no directories; there is one for each class")
    return files


def share_of(name: str) -> float:
    """Return a number in [0, 1) that depends on the name alone, and is uniform over names."""
    return int.from_bytes(sha256(name.encode()).digest()[:6], "big") / 2**48


@contextmanager
def decoding() -> Iterator[None]:
    """Silence Pillow's warnings inside, such as of damaged metadata."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def decode(path: Path, size: tuple[int, int], channels: int) -> np.ndarray:
    """Return the image in a file as `fitted` does.

    Raises DataError with the reason, in a line, where it is no whole image, or claims more pixels than Pillow decodes
    (Image.MAX_IMAGE_PIXELS, twice).
    """
    try:
        with Image.open(path) as image:
            image.draft(None, (DRAFT * max(size), DRAFT * max(size)))
            return fitted(image, size, channels)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except Exception as error:  # of a damaged file Pillow raises OSError, SyntaxError, struct.error and many others
        reason = "is empty" if _is_empty(path) else f"cannot be decoded: {_reason(error)}"
        raise DataError(f"{path}: {reason}") from None


def fitted(image: Image.Image, size: tuple[int, int], channels: int) -> np.ndarray:
    """Return the image upright, uint8 (channels, *size), scaled to cover `size` (height, width) and cropped evenly.

    16 bits become 8; what is transparent has the colour that the file gives. Raises DataError for floats.
    """
    height, width = size
    upright = _in_8_bits(ImageOps.exif_transpose(image)).convert(MODES[channels])
    resized = ImageOps.fit(upright, (width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized).reshape(height, width, channels).transpose(2, 0, 1)


def _in_8_bits(image: Image.Image) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    if image.mode == "F":
        raise DataError("holds floats, whose scale is not known; save it with 8 or 16 bits")
    return image.convert("RGBA") if image.mode == "P" and "transparency" in image.info else image


def _is_empty(path: Path) -> bool:
    return path.is_file() and path.stat().st_size == 0


def _reason(error: Exception) -> str:
    text = str(getattr(error, "strerror", None) or error) or type(error).__name__
    return printable(text.splitlines()[0].split(" file '")[0].removesuffix(" '"))
