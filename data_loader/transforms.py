"""Transforms of single images that a config may name beside those of torchvision.transforms.v2. Yours to extend."""

from __future__ import annotations

import torchvision.transforms.v2.functional as F
from torch import Tensor, nn

from utils.annotations import Probability


class PadToSquare(nn.Module):
    """Pads the shorter side of an image at both ends, so that a Resize after it keeps the image's proportions.

    `fill` is the new pixels' share of white: 0 is black, 1 is white.
    """

    def __init__(self, fill: Probability = 0.0) -> None:
        super().__init__()
        self.fill = fill

    def forward(self, image: Tensor) -> Tensor:
        """(..., C, H, W) -> (..., C, L, L) with L = max(H, W); an image of PIL or a tv_tensor stays one."""
        height, width = F.get_size(image)
        missing = max(height, width)
        left, top = (missing - width) // 2, (missing - height) // 2
        padding = [left, top, missing - width - left, missing - height - top]
        is_float = isinstance(image, Tensor) and image.is_floating_point()
        return F.pad(image, padding, fill=self.fill if is_float else round(255 * self.fill))
