import torch.nn as nn
import torch.nn.functional as F
from base import BaseModel


def conv_block(n_in, n_out):
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(n_out),
        nn.LeakyReLU(0.01, inplace=True)
    )


class SmallCNN(BaseModel):
    def __init__(self, num_classes=5, width=8, dropout=0.2):
        super().__init__()
        self.block1 = conv_block(3, width)
        self.block2 = conv_block(width, 2 * width)
        self.dropout = nn.Dropout2d(dropout)
        self.fc = nn.Linear(2 * width, num_classes)

    def forward(self, x):
        x = F.max_pool2d(self.block1(x), 2)
        x = self.dropout(self.block2(x))
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)
        return self.fc(x)
