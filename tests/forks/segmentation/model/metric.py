import torch


def pixel_acc(output, target):
    with torch.no_grad():
        main, _ = output
        return (main.argmax(dim=1) == target).float().mean().item()


def mean_iou(output, target):
    """ intersection over union, averaged over the classes that are in prediction or target """
    with torch.no_grad():
        main, _ = output
        pred = main.argmax(dim=1)
        ious = []
        for c in range(main.shape[1]):
            intersection = ((pred == c) & (target == c)).sum().item()
            union = ((pred == c) | (target == c)).sum().item()
            if union > 0:
                ious.append(intersection / union)
    return sum(ious) / len(ious)
