"""Augmentations of whole batches: functions of the images and of uniform numbers that belong to each sample."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def random_shift(images: Tensor, uniforms: Tensor, max_shift: int) -> Tensor:
    """Move each image by up to `max_shift` pixels, down or up and right or left; what moves in repeats the border.

    `images` is (N, C, H, W); columns 0 and 1 of `uniforms`, (N, 2 or more) in [0, 1), say how far.
    """
    height, width = images.shape[2:]
    shifts = (uniforms[:, :2] * (2 * max_shift + 1)).long()  # (N, 2), 0 to 2 * max_shift
    rows = shifts[:, 0, None] + torch.arange(height, device=images.device)  # (N, H)
    columns = shifts[:, 1, None] + torch.arange(width, device=images.device)  # (N, W)
    padded = F.pad(images, (max_shift,) * 4, mode="replicate")
    samples = torch.arange(len(images), device=images.device)[:, None, None]
    moved = padded[samples, :, rows[:, :, None], columns[:, None, :]]  # (N, H, W, C)
    return moved.permute(0, 3, 1, 2).contiguous()
