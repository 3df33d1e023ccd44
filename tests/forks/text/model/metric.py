import torch


def accuracy(output, target):
    with torch.no_grad():
        pred = torch.argmax(output, dim=1)
        return (pred == target).sum().item() / len(target)


def macro_f1(output, target):
    """ F1 score, averaged over the classes that are in the batch """
    with torch.no_grad():
        pred = torch.argmax(output, dim=1)
        scores = []
        for c in target.unique():
            tp = ((pred == c) & (target == c)).sum().item()
            fp = ((pred == c) & (target != c)).sum().item()
            fn = ((pred != c) & (target == c)).sum().item()
            scores.append(2 * tp / max(2 * tp + fp + fn, 1))
    return sum(scores) / len(scores)
