import numpy as np
import torch
from torch.utils.data import TensorDataset
from base import BaseDataLoader


class RingsDataLoader(BaseDataLoader):
    """
    Images of rings, (1, 16, 16) between -1 and 1, without labels
    """
    def __init__(self, data_dir, batch_size, shuffle=True, validation_split=0.0, num_workers=1, training=True):
        self.data_dir = data_dir
        rng = np.random.RandomState(0 if training else 1)
        row, col = np.mgrid[0:16, 0:16]
        images = []
        for _ in range(128 if training else 32):
            y, x, r = rng.uniform(6, 9), rng.uniform(6, 9), rng.uniform(3, 6)
            distance = np.sqrt((row - y) ** 2 + (col - x) ** 2)
            images.append(2 * np.exp(-(distance - r) ** 2) - 1)
        self.dataset = TensorDataset(torch.tensor(np.stack(images), dtype=torch.float32).unsqueeze(1))
        super().__init__(self.dataset, batch_size, shuffle, validation_split, num_workers)
