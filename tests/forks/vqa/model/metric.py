import torch


def accuracy(output, target):
    with torch.no_grad():
        pred = torch.argmax(output, dim=1)
        return (pred == target).sum().item() / len(target)


def top_2_acc(output, target, k=2):
    with torch.no_grad():
        pred = torch.topk(output, k, dim=1)[1]
        return (pred == target.view(-1, 1)).any(dim=1).sum().item() / len(target)
