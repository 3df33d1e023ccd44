import torch
import torch.nn as nn
from base import BaseModel


class Generator(BaseModel):
    """ noise (N, latent_dim) -> images (N, 1, 16, 16) between -1 and 1 """
    def __init__(self, latent_dim=16, width=8):
        super().__init__()
        self.latent_dim = latent_dim
        self.fc = nn.Linear(latent_dim, 2 * width * 4 * 4)
        self.net = nn.Sequential(
            nn.BatchNorm2d(2 * width),
            nn.ReLU(True),
            nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(True),
            nn.ConvTranspose2d(width, 1, 4, stride=2, padding=1),
            nn.Tanh()
        )

    def forward(self, z):
        x = self.fc(z)
        return self.net(x.view(z.size(0), -1, 4, 4))


class Discriminator(BaseModel):
    """ images -> one logit each, high where the image looks real """
    def __init__(self, width=8, dropout=0.25):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Dropout2d(dropout),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Dropout2d(dropout)
        )
        self.fc = nn.Linear(2 * width * 4 * 4, 1)

    def forward(self, x):
        return self.fc(torch.flatten(self.net(x), 1)).squeeze(1)
