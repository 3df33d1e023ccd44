import numpy as np
import torch
from torch.utils.data import Dataset
from base import BaseDataLoader


class JointTransform(object):
    """ what is done to an image at random has to be done to its mask too """
    def __call__(self, image, mask):
        if np.random.rand() < 0.5:
            image, mask = image[:, ::-1], mask[:, ::-1]
        k = np.random.randint(4)
        image, mask = np.rot90(image, k), np.rot90(mask, k)
        image = image * np.random.uniform(0.8, 1.2)
        return image, mask


class ShapesDataset(Dataset):
    """ images of a square and a disc on a noisy ground; masks: 0 ground, 1 square, 2 disc """
    def __init__(self, n_images, seed, size=24, transform=None):
        rng = np.random.RandomState(seed)
        self.transform = transform
        self.images, self.masks = [], []
        row, col = np.mgrid[0:size, 0:size]
        for _ in range(n_images):
            mask = np.zeros((size, size), dtype='int64')
            y, x = rng.randint(0, size - 8, size=2)
            mask[y:y + 8, x:x + 8] = 1
            y, x = rng.randint(5, size - 5, size=2)
            mask[(row - y) ** 2 + (col - x) ** 2 <= 20] = 2
            colors = np.array([0.1, 0.5, 0.8])[:, None] + 0.2 * rng.rand(3, 3)
            self.images.append(colors[mask] + 0.15 * rng.randn(size, size, 3))
            self.masks.append(mask)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, idx):
        image, mask = self.images[idx], self.masks[idx]
        if self.transform is not None:
            image, mask = self.transform(image, mask)
        image = torch.from_numpy(image.transpose(2, 0, 1).copy()).float()
        return (image - 0.5) / 0.25, torch.from_numpy(mask.copy())


class ShapesDataLoader(BaseDataLoader):
    def __init__(self, data_dir, batch_size, shuffle=True, validation_split=0.0, num_workers=1, training=True):
        self.data_dir = data_dir
        if training:
            self.dataset = ShapesDataset(80, seed=0, transform=JointTransform())
        else:
            self.dataset = ShapesDataset(24, seed=1)
        super().__init__(self.dataset, batch_size, shuffle, validation_split, num_workers)
