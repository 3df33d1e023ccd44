"""Which samples a split holds out; of very many that is kept: to draw it takes longer than to map a table."""

from __future__ import annotations

import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from utils.rng import permutation

MIN_SAMPLES = 1_000_000
CHECKSUM_BYTES = 4  # CRC-32, ahead of the bits


def drawn(num_samples: int, size: int, seed: int, cache_dir: Path | None = None) -> NDArray[np.bool_]:
    """Return which samples are held out, (num_samples,): `size` of them, a function of the first three arguments.

    Of MIN_SAMPLES and more they are kept in `cache_dir`, and read from there the next time.
    """
    if cache_dir is None or num_samples < MIN_SAMPLES:
        return _draw(num_samples, size, seed)
    path = cache_dir / f"split-{num_samples}-{size}-{seed}-torch-{torch.__version__}.bits"
    with suppress(OSError):
        data = path.read_bytes()
        if data[:CHECKSUM_BYTES] == _checksum(data[CHECKSUM_BYTES:]):
            bits = np.frombuffer(data, np.uint8, offset=CHECKSUM_BYTES)
            return np.unpackbits(bits, count=num_samples).view(np.bool_)
    is_held_out = _draw(num_samples, size, seed)
    packed = np.packbits(is_held_out).tobytes()
    with suppress(OSError):  # where it is not written, or not whole, it is drawn again
        cache_dir.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_checksum(packed) + packed)
    return is_held_out


def _draw(num_samples: int, size: int, seed: int) -> NDArray[np.bool_]:
    is_held_out = np.zeros(num_samples, dtype=bool)  # for very many samples this takes less than to sort them
    order = permutation(num_samples, torch.Generator().manual_seed(seed))
    is_held_out[order[:size].numpy()] = True
    return is_held_out


def _checksum(data: bytes) -> bytes:
    return zlib.crc32(data, 1).to_bytes(CHECKSUM_BYTES, "big")  # from 1: that of nothing is not 0
