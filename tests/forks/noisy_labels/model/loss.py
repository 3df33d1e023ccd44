import torch
import torch.nn as nn
import torch.nn.functional as F


def cross_entropy(output, target):
    return F.cross_entropy(output, target)


class ELRLoss(nn.Module):
    """
    Early-learning regularization: keeps for each training sample a running average of what the model said of it, and
    holds the model to that once it would begin to learn the wrong labels by heart
    """
    def __init__(self, num_samples, num_classes, device, beta=0.7, weight=3.0):
        super().__init__()
        self.target = torch.zeros(num_samples, num_classes).to(device)
        self.beta = beta
        self.weight = weight

    def forward(self, output, label, index):
        prob = torch.clamp(F.softmax(output, dim=1), 1e-4, 1.0 - 1e-4)
        prob_ = prob.detach()
        self.target[index] = self.beta * self.target[index] \
            + (1 - self.beta) * prob_ / prob_.sum(dim=1, keepdim=True)
        elr = torch.log(1 - (self.target[index] * prob).sum(dim=1)).mean()
        return F.cross_entropy(output, label) + self.weight * elr
