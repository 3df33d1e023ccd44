import torch


def mae(output, target):
    with torch.no_grad():
        return (output - target).abs().mean().item()


def hit_rate(output, target):
    """ how often the price goes where it was said to go """
    with torch.no_grad():
        return ((output > 0) == (target > 0)).float().mean().item()
