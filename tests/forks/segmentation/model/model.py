import torch
import torch.nn as nn
import torch.nn.functional as F
from base import BaseModel


def double_conv(n_in, n_out):
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, 3, padding=1, bias=False),
        nn.BatchNorm2d(n_out),
        nn.ReLU(inplace=True),
        nn.Conv2d(n_out, n_out, 3, padding=1, bias=False),
        nn.BatchNorm2d(n_out),
        nn.ReLU(inplace=True)
    )


class SmallUNet(BaseModel):
    """
    U-Net with one skip connection and an auxiliary head on the coarse features. Both outputs have the size of the input.
    """
    def __init__(self, n_classes=3, width=8, dropout=0.2):
        super().__init__()
        self.enc1 = double_conv(3, width)
        self.enc2 = double_conv(width, 2 * width)
        self.dropout = nn.Dropout2d(dropout)
        self.up = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.dec = double_conv(2 * width, width)
        self.head = nn.Conv2d(width, n_classes, 1)
        self.aux_head = nn.Conv2d(2 * width, n_classes, 1)

    def forward(self, x):
        fine = self.enc1(x)
        coarse = self.dropout(self.enc2(F.max_pool2d(fine, 2)))
        main = self.head(self.dec(torch.cat([fine, self.up(coarse)], dim=1)))
        aux = F.interpolate(self.aux_head(coarse), size=x.shape[2:], mode='bilinear', align_corners=False)
        return main, aux
