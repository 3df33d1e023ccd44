import numpy as np
from torch.utils.data import Dataset
from torchvision import transforms
from base import BaseDataLoader


class GeneratedDigits(Dataset):
    """
    Images in the shape of MNIST's: a blurred blob per class at a place of its own, and noise
    """
    def __init__(self, train=True, transform=None):
        rng = np.random.RandomState(0 if train else 1)
        n = 160 if train else 40
        self.targets = rng.randint(0, 10, size=n)
        self.transform = transform
        row, col = np.mgrid[0:28, 0:28]
        images = []
        for t in self.targets:
            y, x = 6 + 8 * (t // 4) + rng.randint(-1, 2), 4 + 6 * (t % 4) + rng.randint(-1, 2)
            image = 230 * np.exp(-((row - y) ** 2 + (col - x) ** 2) / 18) + 20 * rng.rand(28, 28)
            images.append(image.clip(0, 255).astype('uint8'))
        self.data = np.stack(images)

    def __getitem__(self, index):
        img, target = self.data[index], int(self.targets[index])
        if self.transform is not None:
            img = self.transform(img[:, :, None])
        return img, target

    def __len__(self):
        return len(self.data)


class MnistDataLoader(BaseDataLoader):
    """
    Demo of a loader built on BaseDataLoader
    """
    def __init__(self, data_dir, batch_size, shuffle=True, validation_split=0.0, num_workers=1, training=True):
        trsfm = transforms.Compose([
            transforms.ToTensor(),
            transforms.Normalize((0.1307,), (0.3081,))
        ])
        self.data_dir = data_dir
        self.dataset = GeneratedDigits(train=training, transform=trsfm)
        super().__init__(self.dataset, batch_size, shuffle, validation_split, num_workers)
