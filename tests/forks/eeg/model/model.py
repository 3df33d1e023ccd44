import torch
import torch.nn as nn
from base import BaseModel


class GradientReversal(torch.autograd.Function):
    """ identity forward, gradient times -alpha backward """
    @staticmethod
    def forward(ctx, x, alpha):
        ctx.alpha = alpha
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad_output):
        return -ctx.alpha * grad_output, None


class EEGNetDA(BaseModel):
    """
    Small convolutional net over (N, channels, time) with two heads: the mental state, and, behind a gradient reversal,
    whose recording it is. The features shall tell nothing of the latter.
    """
    def __init__(self, n_channels=4, n_classes=3, n_subjects=5, dropout=0.25):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv1d(n_channels, 8, kernel_size=15, stride=2, padding=7, bias=False),
            nn.BatchNorm1d(8),
            nn.ELU(),
            nn.AvgPool1d(2),
            nn.Dropout(dropout),
            nn.Conv1d(8, 16, kernel_size=7, padding=3, bias=False),
            nn.BatchNorm1d(16),
            nn.ELU(),
            nn.AdaptiveAvgPool1d(4),
            nn.Dropout(dropout)
        )
        self.classifier = nn.Linear(64, n_classes)
        self.subject_classifier = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, n_subjects))

    def forward(self, x, alpha=1.0):
        x = self.features(x)
        x = x.view(x.size(0), -1)
        return self.classifier(x), self.subject_classifier(GradientReversal.apply(x, alpha))
