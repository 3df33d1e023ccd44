"""Augmentations move every sample by what its own uniform numbers say."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from data_loader.augment import random_shift


def test_each_image_is_moved_by_its_own_numbers() -> None:
    images = torch.randn(25, 3, 8, 6, generator=torch.Generator().manual_seed(0))
    steps = torch.cartesian_prod(torch.arange(5), torch.arange(5))  # every shift of -2 to 2, once
    moved = random_shift(images, (steps + 0.5) / 5, max_shift=2)
    for image, result, (down, right) in zip(images, moved, steps.tolist()):
        padded = F.pad(image[None], (2, 2, 2, 2), mode="replicate")[0]
        assert torch.equal(result, padded[:, down : down + 8, right : right + 6])


def test_the_ends_of_the_range_stay_inside() -> None:
    images = torch.randn(2, 1, 4, 4)
    almost_one = 1 - 2**-24
    moved = random_shift(images, torch.tensor([[0.0, 0.0], [almost_one, almost_one]]), max_shift=1)
    assert moved.shape == images.shape
