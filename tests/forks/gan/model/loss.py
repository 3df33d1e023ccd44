import torch
import torch.nn.functional as F


def gan_loss(output, is_real):
    target = torch.ones_like(output) if is_real else torch.zeros_like(output)
    return F.binary_cross_entropy_with_logits(output, target)


def lsgan_loss(output, is_real):
    return ((output - (1.0 if is_real else 0.0)) ** 2).mean()
