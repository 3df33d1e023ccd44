import torch


def accuracy(output, target):
    with torch.no_grad():
        pred = torch.argmax(output, dim=1)
        return (pred == target).sum().item() / len(target)


def kappa(output, target):
    """ Cohen's kappa: how much better than chance """
    with torch.no_grad():
        n = len(target)
        pred = torch.argmax(output, dim=1)
        observed = (pred == target).sum().item() / n
        expected = sum((pred == c).sum().item() * (target == c).sum().item()
                       for c in range(output.shape[1])) / n ** 2
    return (observed - expected) / (1 - expected) if expected < 1 else 0.0
