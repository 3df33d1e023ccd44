import torch


def brightness_gap(fake, real):
    with torch.no_grad():
        return (fake.mean() - real.mean()).abs().item()


def contrast_gap(fake, real):
    with torch.no_grad():
        return (fake.std() - real.std()).abs().item()
