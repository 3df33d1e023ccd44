import torch


def accuracy(output, target):
    with torch.no_grad():
        pred = torch.argmax(output, dim=1)
        return (pred == target).sum().item() / len(target)


def mean_class_acc(output, target):
    """ accuracy of each class that is in the batch, averaged over these classes """
    with torch.no_grad():
        correct = (torch.argmax(output, dim=1) == target).float()
        return torch.stack([correct[target == c].mean() for c in target.unique()]).mean().item()
