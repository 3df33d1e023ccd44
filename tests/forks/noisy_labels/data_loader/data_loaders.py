import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import Dataset
from base import BaseDataLoader


class NoisyColors(Dataset):
    """
    Small color images with some of the labels replaced by random ones. Gives (image, label, index, true label).
    """
    palette = np.array([[.8, .2, .2], [.2, .8, .2], [.2, .2, .8], [.7, .7, .2], [.2, .7, .7]])

    def __init__(self, n, noise_rate, seed, augment):
        rng = np.random.RandomState(seed)
        self.true_labels = rng.randint(len(self.palette), size=n)
        images = self.palette[self.true_labels][:, :, None, None] + 0.25 * rng.randn(n, 3, 12, 12)
        self.images = torch.tensor(images, dtype=torch.float32) - 0.5
        self.labels = self.true_labels.copy()
        noisy = rng.permutation(n)[:int(noise_rate * n)]
        self.labels[noisy] = rng.randint(len(self.palette), size=len(noisy))
        self.augment = augment

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        img = self.images[index]
        if self.augment:
            img = F.pad(img, (2, 2, 2, 2))
            top, left = torch.randint(0, 5, (2,)).tolist()
            img = img[:, top:top + 12, left:left + 12]
            if torch.rand(1) < 0.5:
                img = img.flip(2)
        return img, self.labels[index], index, self.true_labels[index]


class NoisyDataLoader(BaseDataLoader):
    def __init__(self, data_dir, batch_size, shuffle=True, validation_split=0.0, num_workers=1, training=True,
                 noise_rate=0.3):
        self.data_dir = data_dir
        if training:
            self.dataset = NoisyColors(160, noise_rate, seed=0, augment=True)
        else:
            self.dataset = NoisyColors(60, 0.0, seed=1, augment=False)
        super().__init__(self.dataset, batch_size, shuffle, validation_split, num_workers)
