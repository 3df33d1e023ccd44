"""A few of scikit-learn's digits as the files of a small MNIST: real images, and epochs of hundredths of a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from data_loader.mnist import FILES

NUM_VALID = 32
NUM_IMAGES = {True: 230 + NUM_VALID, False: 40}  # the last batch of an epoch is smaller than the others
NUM_STEPS = 8  # an epoch, in batches of BATCH_SIZE
BATCH_SIZE = 32


def idx(array: np.ndarray) -> bytes:
    """Return the IDX file of an array of bytes."""
    return bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


def write_few_digits(folder: Path) -> None:
    """Write the four files of MNIST with the first digits, each pixel of the 8x8 as 3x3, in a frame of 2."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.kron(digits.images * 15, np.ones((1, 3, 3)))
    images = np.pad(images, [(0, 0), (2, 2), (2, 2)]).astype(np.uint8)
    folder.mkdir(parents=True)
    start = 0
    for training, size in NUM_IMAGES.items():
        images_name, labels_name = FILES[training]
        (folder / images_name).write_bytes(idx(images[start : start + size]))
        (folder / labels_name).write_bytes(idx(digits.target[start : start + size].astype(np.uint8)))
        start += size


def on_few_digits(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Let `config`, of a MnistDataLoader, train on them on the CPU, in place; return it."""
    config["n_gpu"] = 0
    args = config["data_loader"]["args"]
    args |= {"data_dir": str(folder), "source": "mnist", "batch_size": BATCH_SIZE}
    if "validation_split" in args:
        args["validation_split"] = NUM_VALID
    return config
