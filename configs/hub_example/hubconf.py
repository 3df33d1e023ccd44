"""A directory as torch.hub reads it: each function here is a model that configs/hub.json may name."""

from torch import nn

dependencies = ["torch"]


def separable_net(width: int = 32, num_classes: int = 10) -> nn.Module:
    """Return a small net of depthwise and pointwise convolutions: images (N, 1, H, W) -> logits (N, num_classes)."""
    layers: list[nn.Module] = [nn.Conv2d(1, width, 3, stride=2, padding=1), nn.ReLU()]
    for _ in range(2):
        layers += [
            nn.Conv2d(width, width, 3, stride=2, padding=1, groups=width),
            nn.Conv2d(width, 2 * width, 1),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
        ]
        width *= 2
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))
