"""Images that are decoded once: which of them are damaged, and a file of all others that is mapped instead of read."""

from __future__ import annotations

import json
import logging
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import sha256
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import __version__ as PILLOW_VERSION

from base.array_cache import KEY_LENGTH, checksum_of, find_array, locked, write_array
from images.files import ImageFiles, decode, decoding
from utils import DataError
from utils.files import write_atomic

FORMAT = 1  # of the files; a new number makes old ones invalid
CHUNK = 256  # images that are decoded at a time
MAX_LINES = 20  # of damaged files that a message names

logger = logging.getLogger("data")


def identity(files: ImageFiles, size: tuple[int, int], channels: int, with_times: bool = True) -> str:
    """Return a hash of names, sizes and times of change of the files, and of what they are decoded to.

    Raises DataError, naming them, where files are gone.
    """
    try:
        stats = [os.stat(files.root / name) for name in files.names]
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read: {error.strerror}") from None
    entries = [(name, s.st_size, s.st_mtime_ns if with_times else 0) for name, s in zip(files.names, stats)]
    return sha256(repr((FORMAT, PILLOW_VERSION, size, channels, entries)).encode()).hexdigest()[:KEY_LENGTH]


def whole_images(
    files: ImageFiles, size: tuple[int, int], channels: int, cache_dir: Path, *, skip_damaged: bool, keep: bool
) -> tuple[ImageFiles, tuple[Path, str] | None]:
    """Return the files that can be decoded; and with `keep` the .npy file, uint8 (N, C, H, W), of them, and a checksum.

    Decodes all of them on all cores, unless that was done before: the cache remembers which are damaged. One process
    does so at a time, and others wait. Raises DataError with a line for each damaged file, unless `skip_damaged`; or
    where `cache_dir` cannot be written to.
    """
    key = identity(files, size, channels)
    report = cache_dir / f"{key}.json"
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        if not report.exists() or (keep and find_array(cache_dir, key) is None):
            with locked(cache_dir):
                if not report.exists() or (keep and find_array(cache_dir, key) is None):
                    _decode_all(files, size, channels, cache_dir, key, keep)
        damaged: dict[str, str] = json.loads(report.read_text("utf-8"))
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise DataError(f"{cache_dir}: cannot be used: {getattr(error, 'strerror', None) or error}") from error
    if damaged:
        _tell(files, damaged, skip_damaged)
    path = find_array(cache_dir, key) if keep else None
    whole = files.without({int(number) for number in damaged})
    return whole, None if path is None else (path, checksum_of(path))


def _tell(files: ImageFiles, damaged: dict[str, str], skip_damaged: bool) -> None:
    lines = [f"{files.root / files.names[int(number)]}: {reason}" for number, reason in damaged.items()]
    count = f"{len(lines):,} of {len(files.names):,} images in {files.root} are damaged"
    if skip_damaged and len(lines) < len(files.names):
        logger.warning("\n".join([f"{count} and left out:", *_shortened(lines)]))
        return
    raise DataError("\n".join([f"{count}; with skip_damaged they are left out:", *_shortened(lines)]))


def _shortened(lines: list[str]) -> list[str]:
    more = len(lines) - MAX_LINES
    return lines if more <= 0 else [*lines[:MAX_LINES], f"and {more:,} more"]


def _decode_all(files: ImageFiles, size: tuple[int, int], channels: int, cache_dir: Path, key: str, keep: bool) -> None:
    logger.info(f"{files.root}: decoding {len(files.names):,} images, once; {'kept in' if keep else 'see'} {cache_dir}")
    damaged: dict[int, str] = {}

    def whole() -> Iterator[np.ndarray]:
        for number, image in enumerate(decoded(files, size, channels)):
            if isinstance(image, str):
                damaged[number] = image.removeprefix(f"{files.root / files.names[number]}: ")
            else:
                yield np.ascontiguousarray(image)[None]

    def report() -> None:  # before the array has its name: with that, both are there
        write_atomic(cache_dir / f"{key}.json", json.dumps(damaged).encode())

    if keep:
        write_array(cache_dir, key, whole(), (channels, *size), np.uint8, notes=report)
    else:
        deque(whole(), maxlen=0)
        report()


def decoded(files: ImageFiles, size: tuple[int, int], channels: int) -> Iterator[np.ndarray | str]:
    """Yield each image, or why it cannot be decoded; Pillow decodes on all cores, as it leaves the interpreter."""
    decode_one = partial(_image_or_reason, size=size, channels=channels)
    paths = (files.root / name for name in files.names)
    with decoding(), ThreadPoolExecutor(os.cpu_count()) as pool:
        while chunk := list(islice(paths, CHUNK)):
            yield from pool.map(decode_one, chunk)


def _image_or_reason(path: Path, size: tuple[int, int], channels: int) -> np.ndarray | str:
    try:
        return decode(path, size, channels)
    except DataError as error:
        return str(error)
