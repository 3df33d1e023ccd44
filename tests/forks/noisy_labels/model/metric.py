import torch


def accuracy(output, target):
    with torch.no_grad():
        return (output.argmax(dim=1) == target).float().mean().item()


def confidence(output, target):
    with torch.no_grad():
        return torch.softmax(output, dim=1).max(dim=1)[0].mean().item()
