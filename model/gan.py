"""A small GAN for images of 28x28, after Radford et al. 2016, "Unsupervised Representation Learning with DCGANs"."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from base import BaseModel
from utils.annotations import PositiveInt

NUM_SAMPLES = 64  # images shown in TensorBoard


class Generator(BaseModel):
    """Makes images from noise, in the range of the training split's pixels."""

    low: Tensor
    high: Tensor
    fixed_noise: Tensor

    def __init__(self, noise_size: PositiveInt = 64, width: PositiveInt = 32) -> None:
        """`width` is the number of channels before the last layer."""
        super().__init__()
        self.noise_size = noise_size
        self.layers = nn.Sequential(
            nn.Linear(noise_size, 4 * width * 7 * 7, bias=False),
            nn.Unflatten(1, (4 * width, 7, 7)),
            nn.BatchNorm2d(4 * width),
            nn.ReLU(),
            nn.ConvTranspose2d(4 * width, width, kernel_size=4, stride=2, padding=1, bias=False),  # (N, width, 14, 14)
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.ConvTranspose2d(width, 1, kernel_size=4, stride=2, padding=1),  # (N, 1, 28, 28)
            nn.Sigmoid(),
        )
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.ones(()))
        self.register_buffer("fixed_noise", torch.randn(NUM_SAMPLES, noise_size))  # in every checkpoint

    def adapt(self, data_loader: Any) -> None:
        """Take the range of the pixels."""
        ranges = [torch.stack(images.aminmax()) for images, _ in data_loader.train_samples()]
        self.low, self.high = torch.stack(ranges)[:, 0].min(), torch.stack(ranges)[:, 1].max()

    def forward(self, noise: Tensor) -> Tensor:
        """(N, noise_size) -> images (N, 1, 28, 28)."""
        return self.low + (self.high - self.low) * self.layers(noise)

    def sample_images(self) -> Tensor:
        """Return the images of the same noise each time, (64, 1, 28, 28)."""
        return self(self.fixed_noise)


class Discriminator(BaseModel):
    """Distinguishes real images from generated ones."""

    def __init__(self, width: PositiveInt = 32) -> None:
        """`width` is the number of channels after the first layer."""
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, width, kernel_size=4, stride=2, padding=1),  # (N, width, 14, 14)
            nn.LeakyReLU(0.2),
            nn.Dropout(0.3),
            nn.Conv2d(width, 2 * width, kernel_size=4, stride=2, padding=1),  # (N, 2 * width, 7, 7)
            nn.LeakyReLU(0.2),
            nn.Dropout(0.3),
            nn.Flatten(),
            nn.Linear(2 * width * 7 * 7, 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """(N, 1, 28, 28) -> logits (N,) of being real."""
        return self.layers(images).squeeze(1)
