import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from base import BaseDataLoader


def tail_counts(num_classes, max_count, imbalance):
    """ numbers of samples that fall off exponentially: the last class has max_count * imbalance """
    return [int(max_count * imbalance ** (c / (num_classes - 1.0))) for c in range(num_classes)]


class Stripes(Dataset):
    """ color images of stripes; the class is their direction and width """
    def __init__(self, counts, seed):
        rng = np.random.RandomState(seed)
        self.targets = np.repeat(np.arange(len(counts)), counts)
        row, col = np.mgrid[0:12, 0:12]
        images = []
        for t in self.targets:
            direction = [row, col, row + col][t % 3]
            wave = np.sin((1.0 if t < 3 else 2.0) * direction + rng.uniform(0, 2 * np.pi))
            images.append(wave * rng.uniform(0.3, 1.0, size=(3, 1, 1)) + 0.3 * rng.randn(3, 12, 12))
        self.data = torch.tensor(np.stack(images), dtype=torch.float32)

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        return self.data[index], self.targets[index]


class LongTailDataLoader(BaseDataLoader):
    """
    The training data has a long tail, the data for validation is balanced
    """
    def __init__(self, data_dir, batch_size, shuffle=True, num_workers=1, training=True, validation_split=0.0,
                 num_classes=6, imbalance=0.1):
        self.data_dir = data_dir
        balanced = [8] * num_classes
        counts = tail_counts(num_classes, 60, imbalance)
        self.dataset = Stripes(counts, seed=0) if training else Stripes(balanced, seed=2)
        self.valid_dataset = Stripes(balanced, seed=1)
        self.class_counts = torch.tensor(np.bincount(self.dataset.targets, minlength=num_classes)).float()
        super().__init__(self.dataset, batch_size, shuffle, 0.0, num_workers)

    def split_validation(self):
        kwargs = dict(self.init_kwargs, dataset=self.valid_dataset, shuffle=False)
        return DataLoader(**kwargs)
