import numpy as np
import torch
from torch.utils.data import Dataset
from base import BaseDataLoader


class RandomShift(object):
    def __init__(self, max_shift):
        self.max_shift = max_shift

    def __call__(self, x):
        shift = int(torch.randint(-self.max_shift, self.max_shift + 1, (1,)))
        return torch.roll(x, shift, dims=1)


class GaussianNoise(object):
    def __init__(self, std):
        self.std = std

    def __call__(self, x):
        return x + self.std * torch.randn_like(x)


class EEGDataset(Dataset):
    """
    Trials of four channels, one second at 128 Hz. The class is the band that is strong (theta, alpha, beta), and each
    subject has an amplitude and an offset of its own.
    """
    bands = [6.0, 11.0, 21.0]

    def __init__(self, trials_per_subject, n_subjects, seed, transforms=()):
        rng = np.random.RandomState(seed)
        self.transforms = transforms
        self.trials, self.labels, self.subjects = [], [], []
        time = np.arange(128) / 128.0
        for subject in range(n_subjects):
            gain, offset = 0.5 + 0.25 * subject, 0.3 * (subject - 2)
            for _ in range(trials_per_subject):
                label = rng.randint(len(self.bands))
                freq = self.bands[label] + rng.uniform(-1.5, 1.5)
                phases = rng.uniform(0, 2 * np.pi, size=(4, 1))
                trial = np.sin(2 * np.pi * freq * time + phases) + 0.7 * rng.randn(4, 128)
                self.trials.append(gain * trial + offset)
                self.labels.append(label)
                self.subjects.append(subject)
        self.trials = torch.tensor(np.stack(self.trials), dtype=torch.float32)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, idx):
        x = self.trials[idx]
        for transform in self.transforms:
            x = transform(x)
        return x, self.labels[idx], self.subjects[idx]


class EEGDataLoader(BaseDataLoader):
    def __init__(self, data_dir, batch_size, shuffle=True, validation_split=0.0, num_workers=1, training=True,
                 n_subjects=5):
        self.data_dir = data_dir
        transforms = [RandomShift(8), GaussianNoise(0.1)] if training else []
        self.dataset = EEGDataset(32 if training else 10, n_subjects, seed=0 if training else 1, transforms=transforms)
        super().__init__(self.dataset, batch_size, shuffle, validation_split, num_workers)
