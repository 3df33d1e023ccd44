"""Augmentations of whole batches: functions of the images and of uniform numbers that belong to each sample."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

MIN_ERASED, MAX_ERASED = 0.02, 0.33  # share of the image's area
MAX_ASPECT = 3.3  # of the erased rectangle, either way


@dataclass(frozen=True)
class Augmentation:
    """Random changes to training images; with the defaults none.

    Each step uses its own random numbers of a sample, so turning one off does not change the others.
    """

    max_shift: int = 0  # pixels
    flip: float = 0.0  # probability
    erasing: float = 0.0  # probability

    def __call__(self, images: Tensor, uniforms: Tensor) -> Tensor:
        """`images` is (N, C, H, W), `uniforms` (N, 8) float32 in [0, 1)."""
        images = random_shift(images, uniforms[:, 0:2], self.max_shift) if self.max_shift else images
        images = random_flip(images, uniforms[:, 2], self.flip) if self.flip else images
        return random_erasing(images, uniforms[:, 3:8], self.erasing) if self.erasing else images


def random_shift(images: Tensor, uniforms: Tensor, max_shift: int) -> Tensor:
    """Move each image by up to `max_shift` pixels, vertically and horizontally; what moves in repeats the border.

    A random crop of the padded image. `images` is (N, C, H, W); `uniforms`, (N, 2) in [0, 1), says how far.
    """
    height, width = images.shape[2:]
    shifts = (uniforms * (2 * max_shift + 1)).long()  # (N, 2), 0 to 2 * max_shift
    rows = shifts[:, 0, None] + torch.arange(height, device=images.device)  # (N, H)
    columns = shifts[:, 1, None] + torch.arange(width, device=images.device)  # (N, W)
    padded = F.pad(images, (max_shift,) * 4, mode="replicate")
    samples = torch.arange(len(images), device=images.device)[:, None, None]
    moved = padded[samples, :, rows[:, :, None], columns[:, None, :]]  # (N, H, W, C)
    return moved.permute(0, 3, 1, 2).contiguous()


def random_flip(images: Tensor, uniforms: Tensor, probability: float) -> Tensor:
    """Mirror each image, left to right, with `probability`; `uniforms` is (N,) in [0, 1)."""
    return torch.where((uniforms < probability)[:, None, None, None], images.flip(3), images)


def random_erasing(images: Tensor, uniforms: Tensor, probability: float) -> Tensor:
    """Set a rectangle of each image to the image's mean with `probability`; `uniforms` is (N, 5) in [0, 1).

    Zhong et al. 2017, "Random erasing data augmentation", with its ranges of area and aspect ratio.
    """
    height, width = images.shape[2:]
    is_erased = uniforms[:, 0] < probability
    area = (MIN_ERASED + (MAX_ERASED - MIN_ERASED) * uniforms[:, 1]) * height * width
    aspect = torch.exp(math.log(MAX_ASPECT) * (2 * uniforms[:, 2] - 1))
    rows = _inside(uniforms[:, 3], (area * aspect).sqrt(), height)  # (N, H)
    columns = _inside(uniforms[:, 4], (area / aspect).sqrt(), width)  # (N, W)
    is_inside = rows[:, :, None] & columns[:, None, :] & is_erased[:, None, None]  # (N, H, W)
    return torch.where(is_inside.unsqueeze(1), images.mean(dim=(1, 2, 3), keepdim=True), images)


def _inside(uniforms: Tensor, lengths: Tensor, size: int) -> Tensor:
    """Return which of `size` pixels lie in an interval of a given length at a random place, (N, size) bool."""
    lengths = lengths.round().clamp(1, size)
    starts = (uniforms * (size - lengths + 1)).floor()  # (N,)
    pixels = torch.arange(size, device=uniforms.device)
    return (pixels >= starts[:, None]) & (pixels < (starts + lengths)[:, None])
