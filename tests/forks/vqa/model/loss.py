import torch.nn.functional as F


def answer_loss(output, target):
    return F.cross_entropy(output, target)
