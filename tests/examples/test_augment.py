"""Augmentations do to every sample what its own uniform numbers say."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from data_loader.augment import Augmentation, random_erasing, random_flip, random_shift
from utils import sample_uniforms

ALMOST_ONE = 1 - 2**-24
IMAGES = torch.randn(200, 3, 8, 6, generator=torch.Generator().manual_seed(0))
UNIFORMS = sample_uniforms(0, 1, torch.arange(200), 8)


def test_each_image_is_moved_by_its_own_numbers() -> None:
    images = IMAGES[:25]
    steps = torch.cartesian_prod(torch.arange(5), torch.arange(5))  # every shift of -2 to 2, once
    moved = random_shift(images, (steps + 0.5) / 5, max_shift=2)
    for image, result, (down, right) in zip(images, moved, steps.tolist()):
        padded = F.pad(image[None], (2, 2, 2, 2), mode="replicate")[0]
        assert torch.equal(result, padded[:, down : down + 8, right : right + 6])


def test_the_ends_of_the_range_stay_inside() -> None:
    moved = random_shift(IMAGES[:2], torch.tensor([[0.0, 0.0], [ALMOST_ONE, ALMOST_ONE]]), max_shift=1)
    assert moved.shape == IMAGES[:2].shape


def test_images_are_mirrored_where_their_number_is_below_the_probability() -> None:
    flipped = random_flip(IMAGES, UNIFORMS[:, 2], 0.3)
    for image, result, uniform in zip(IMAGES, flipped, UNIFORMS[:, 2].tolist()):
        assert torch.equal(result, image.flip(2) if uniform < 0.3 else image)


def erased_box(image: Tensor, result: Tensor) -> tuple[int, int]:
    """Return height and width of the rectangle in which two images differ, which must be filled with the mean."""
    differs = (image != result).any(dim=0)
    rows, columns = differs.any(dim=1).nonzero().flatten(), differs.any(dim=0).nonzero().flatten()
    box = result[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    torch.testing.assert_close(box, image.mean().expand_as(box))
    assert differs.sum() == box[0].numel()
    return box.shape[1], box.shape[2]


def test_one_rectangle_of_an_image_is_erased_where_its_number_is_below_the_probability() -> None:
    images = torch.randn(300, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    uniforms = sample_uniforms(0, 1, torch.arange(300), 5)
    erased = random_erasing(images, uniforms, 0.5)
    for image, result, uniform in zip(images, erased, uniforms[:, 0].tolist()):
        if uniform < 0.5:
            height, width = erased_box(image, result)
            assert 0.01 < height * width / 32**2 < 0.36
            assert 1 / 4 < height / width < 4
        else:
            assert torch.equal(result, image)


@pytest.mark.parametrize("value", [0.0, ALMOST_ONE])
def test_the_extremes_of_erasing_stay_inside(value: float) -> None:
    uniforms = torch.full((1, 5), value)
    uniforms[:, 0] = 0
    height, width = erased_box(IMAGES[0], random_erasing(IMAGES[:1], uniforms, 1.0)[0])
    assert 1 <= height <= 8
    assert 1 <= width <= 6


def test_turning_one_step_off_leaves_the_others_as_they_were() -> None:
    whole = Augmentation(max_shift=1, flip=0.5, erasing=0.5)(IMAGES, UNIFORMS)
    shifted = Augmentation(max_shift=1)(IMAGES, UNIFORMS)
    by_hand = random_erasing(random_flip(shifted, UNIFORMS[:, 2], 0.5), UNIFORMS[:, 3:8], 0.5)
    assert torch.equal(whole, by_hand)
    assert Augmentation()(IMAGES, UNIFORMS) is IMAGES
