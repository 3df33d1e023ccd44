"""MNIST from files or the download; if neither is available, scikit-learn's real 8x8 digits instead."""

from __future__ import annotations

import gzip
import logging
import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Le
from torch import Tensor, nn

from base import (
    AugmentedBatches,
    BaseDataLoader,
    BatchDataset,
    NewInputs,
    TensorBatches,
    TransformedBatches,
    split_indices,
)
from data_loader.augment import Augmentation
from data_loader.samplers import SamplerArg, drawing
from images.new_images import NewImages
from utils import ConfigError, DataError, nearest
from utils.annotations import BatchSize, DataPath, Fold, NonNegativeInt, NumWorkers, Probability, Share
from utils.files import open_regular

MAX_BYTES = 1 << 30  # of an IDX file; a small gzip file may expand to any size
MEAN, STD = 0.1307, 0.3081  # of MNIST's training pixels in [0, 1]
Source = Literal["auto", "mnist", "digits"]
FILES = {
    True: ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    False: ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}

logger = logging.getLogger("data")


class MnistDataLoader(BaseDataLoader):
    """Batches of images (N, 1, 28, 28) float32, as (pixel / 255 - 0.1307) / 0.3081, and labels (N,) int64.

    `source` is "mnist": the IDX files (gzip or not) in `data_dir` or `data_dir`/MNIST/raw, or else their download, or
    else DataError; "digits": scikit-learn's 1,797 digits, enlarged to 28x28, a fifth of them the test split; "auto":
    mnist if available, or else, with a warning, digits. The run's config records which.
    """

    num_classes = 10

    def __init__(
        self,
        data_dir: DataPath,
        batch_size: BatchSize,
        shuffle: bool = True,
        validation_split: Share = 0.0,
        num_workers: NumWorkers = 0,
        training: bool = True,
        *,
        source: Source = "auto",
        max_shift: Annotated[NonNegativeInt, Le(28)] = 0,
        flip: Probability = 0.0,
        erasing: Probability = 0.0,
        fold: Fold | None = None,
        train_transform: Sequence[nn.Module] = (),
        valid_transform: Sequence[nn.Module] = (),
        sampler: SamplerArg | None = None,
    ) -> None:
        """Load the training split, or with `training=False` the test split. Raises ConfigError, DataError.

        Images go through `train_transform`, those of validation and test through `valid_transform`, one by one, as
        (1, 28, 28) uint8; floats that come out must be in [0, 1]. Training images are then augmented at random.
        """
        images, labels, self.source = _load(Path(data_dir), training, source)
        _check_labels(labels, self.num_classes, data_dir)
        plain = _batches(images, labels, valid_transform, "valid_transform")
        dataset = _batches(images, labels, train_transform, "train_transform") if training else plain
        if training and Augmentation(max_shift, flip, erasing) != Augmentation():
            dataset = AugmentedBatches(dataset, Augmentation(max_shift, flip, erasing))
        super().__init__(
            *(dataset, batch_size, shuffle, validation_split, num_workers),
            training=training,
            valid_dataset=plain,
            fold=fold,
            sampler=drawing(sampler, labels),
        )
        self.resolved_args["source"] = self.source

    @classmethod
    def new_inputs(cls, args: Mapping[str, Any], facts: Mapping[str, Any]) -> NewInputs:
        """Return what reads images of 28x28, white on black as MNIST's, in files or in memory, as validation does."""
        return NewImages((28, 28), 1, standardised, args.get("valid_transform", ()), resizes=False)


def _batches(images: Tensor, labels: Tensor, transforms: Sequence[nn.Module], name: str) -> BatchDataset:
    """Return the standardised batches of (N, 28, 28) uint8; `name` is the argument that gives the transforms."""
    images = images.unsqueeze(1)
    if not transforms:
        return TensorBatches(standardised(images), labels)
    return TransformedBatches(TensorBatches(images, labels), transforms, f"data_loader.args.{name}", standardised)


def standardised(images: Tensor) -> Tensor:
    """(N, 1, H, W) uint8, or float in [0, 1] -> float32."""
    scale = 1 if images.is_floating_point() else 255
    return (images.float() / scale - MEAN) / STD


def _check_labels(labels: Tensor, num_classes: int, data_dir: str) -> None:
    wrong = (labels >= num_classes).nonzero().flatten().tolist()
    if wrong:
        where = f"{data_dir}: sample {wrong[0]} of {len(labels):,}"
        raise DataError(f"{where}: its label is {labels[wrong[0]]}; labels are 0 to {num_classes - 1}")


def _load(data_dir: Path, training: bool, source: str) -> tuple[Tensor, Tensor, str]:
    """Return images (N, 28, 28) uint8, labels (N,) int64, and their source."""
    if source not in get_args(Source):
        raise ConfigError(f"data_loader.args.source: unknown source {source!r}; {nearest(source, get_args(Source))}")
    if source == "digits":
        return *_load_digits(training), "digits"
    try:
        return *_load_mnist(data_dir, training), "mnist"
    except DataError as error:
        if source == "mnist":
            raise
        logger.warning(
            f"THIS IS NOT MNIST. {error}. Using scikit-learn's 1,797 handwritten digits (8x8, enlarged) instead; "
            f"results on them are not MNIST results."
        )
        return *_load_digits(training), "digits"


def _load_mnist(data_dir: Path, training: bool) -> tuple[Tensor, Tensor]:
    folder = next((f for f in (data_dir, data_dir / "MNIST" / "raw") if _find(f, FILES[training][0])), None)
    if folder is None:
        _download(data_dir)
        folder = data_dir / "MNIST" / "raw"
    images, labels = (_read_idx(folder, name) for name in FILES[training])
    if images.shape[1:] != (28, 28) or labels.shape != images.shape[:1]:
        raise DataError(f"{folder}: images {images.shape} and labels {labels.shape} do not fit MNIST")
    return torch.from_numpy(images), torch.from_numpy(labels).long()


def _find(folder: Path, name: str) -> Path | None:
    """Return the path of a file, or of a gzip file of it. Raises DataError if `folder` cannot be read."""
    try:
        return next((path for path in (folder / name, folder / f"{name}.gz") if path.exists()), None)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}") from None


def _read_idx(folder: Path, name: str) -> np.ndarray:
    """Read an IDX file of unsigned bytes (LeCun: the MNIST database, "file formats"): magic, sizes, data."""
    path = _find(folder, name)
    if path is None:
        raise DataError(f"{folder}: {name} (or {name}.gz) is missing")
    try:
        with open_regular(path) as raw, gzip.open(raw) if path.suffix == ".gz" else raw as file:
            magic = file.read(4)
            num_dims = magic[3] if magic[:3] == b"\0\0\x08" and len(magic) == 4 else 0
            sizes = file.read(4 * num_dims)
            shape = tuple(int.from_bytes(sizes[i : i + 4], "big") for i in range(0, 4 * num_dims, 4))
            size = math.prod(shape)
            data = file.read(size + 1) if size <= MAX_BYTES else b""  # one byte more, to check that this is the end
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if num_dims == 0 or len(sizes) != 4 * num_dims or len(data) != size:
        raise DataError(f"{path}: not a whole IDX file of bytes")
    return np.frombuffer(data, dtype=np.uint8).reshape(shape).copy()


def _download(data_dir: Path) -> None:
    """Download MNIST to `data_dir`/MNIST/raw. Raises DataError."""
    from torchvision.datasets import MNIST  # 1 s to import, and rarely needed

    try:
        MNIST(str(data_dir), download=True)
    except Exception as error:  # urllib's, ssl's, OSError, RuntimeError: torchvision tries one mirror after another
        reason = str(error).strip().splitlines()[-1][:160] if str(error).strip() else type(error).__name__
        raise DataError(f"MNIST is not in {data_dir} and cannot be downloaded ({reason})") from None


def _load_digits(training: bool) -> tuple[Tensor, Tensor]:
    """Alpaydin and Kaynak 1998, "Optical recognition of handwritten digits" (UCI), as scikit-learn carries them."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    kept, held_out = split_indices(len(digits.target), 0.2, "digits")
    index = kept if training else held_out
    images = torch.from_numpy(digits.images)[index].unsqueeze(1) / 16 * 255  # (N, 1, 8, 8) in [0, 255]
    images = F.interpolate(images.float(), size=(28, 28), mode="bilinear")  # (N, 1, 28, 28)
    return images.squeeze(1).round().to(torch.uint8), torch.from_numpy(digits.target)[index].long()
