"""Images and labels in batches: decoded as they are asked for, or from a file of decoded images."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from base import BatchDataset, MappedBatches
from base.datasets import Indices
from images.files import ImageFiles, decode, decoding
from utils import DataError


class DecodedImages:
    """The images of files, decoded when they are asked for."""

    def __init__(self, files: ImageFiles, size: tuple[int, int], channels: int) -> None:
        self.files, self.size, self.channels = files, size, channels

    def __call__(self, indices: Indices) -> Tensor:
        """Return (N, channels, *size) uint8. Raises DataError with a line for each of these that is damaged."""
        numbers = torch.as_tensor(indices).tolist()
        images = np.empty((len(numbers), self.channels, *self.size), np.uint8)
        damaged: dict[str, None] = {}
        with decoding():
            for position, number in enumerate(numbers):
                try:
                    images[position] = decode(self.files.root / self.files.names[number], self.size, self.channels)
                except DataError as error:
                    damaged[str(error)] = None
        if damaged:
            raise DataError("\n".join([*damaged, "data_loader.args.skip_damaged: true leaves out what is damaged"]))
        return torch.from_numpy(images)

    def check(self) -> None:
        """Do nothing: files show what is damaged when they are decoded."""


class MappedImages(MappedBatches):
    """The images of a file of `whole_images`, (N, C, H, W) uint8."""

    DTYPE: ClassVar[np.dtype] = np.dtype(np.uint8)
    NUM_DIMS: ClassVar[int] = 4

    def __call__(self, indices: Indices) -> Tensor:
        """Return (N, C, H, W) uint8. Raises DataError where the file is damaged."""
        return self._rows(indices)

    def check(self) -> None:
        """Wait until the values have been compared with their checksum. Raises DataError."""
        self.fingerprint()


class ImageBatches(BatchDataset):
    """Batches of images (N, C, H, W), uint8 or `scale`d, and of labels (N,) int64."""

    def __init__(
        self,
        images: DecodedImages | MappedImages,
        labels: Tensor,
        identity: str,
        scale: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        """`identity` stands for the images in the fingerprint, whether they are in files or in one file."""
        self.images, self.labels, self.identity, self.scale = images, labels, identity, scale

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, indices: Indices) -> tuple[Tensor, Tensor]:
        images = self.images(indices)
        return images if self.scale is None else self.scale(images), self.labels[torch.as_tensor(indices)]

    def fingerprint(self) -> str:
        """Return what differs where a name or size of a file does. Raises DataError where the cache is damaged."""
        self.images.check()
        return f"{super().fingerprint()}:{self.identity}"

    def held_targets(self) -> Tensor:
        """Return the labels."""
        return self.labels
