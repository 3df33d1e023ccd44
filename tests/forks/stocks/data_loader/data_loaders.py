import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset


def make_prices(n_days, seed):
    """ daily prices and volumes of a made-up stock whose returns follow each other a little """
    rng = np.random.RandomState(seed)
    returns = np.zeros(n_days)
    for day in range(1, n_days):
        returns[day] = 0.6 * returns[day - 1] + 0.01 * rng.randn()
    prices = 100 * np.exp(np.cumsum(returns))
    volumes = 1e6 * np.exp(20 * np.abs(returns) + 0.1 * rng.randn(n_days))
    return prices, volumes


class WindowDataset(Dataset):
    """
    Windows of a series: (window, 2) standardised log returns and log volumes, and the return of the day after
    """
    def __init__(self, prices, volumes, window, mean=None, std=None):
        features = np.stack([np.diff(np.log(prices)), np.log(volumes[1:])], axis=1)
        self.mean = features.mean(axis=0) if mean is None else mean
        self.std = features.std(axis=0) if std is None else std
        self.features = ((features - self.mean) / self.std).astype('float32')
        self.window = window

    def __len__(self):
        return len(self.features) - self.window

    def __getitem__(self, idx):
        x = self.features[idx:idx + self.window]
        y = self.features[idx + self.window, 0]
        return torch.from_numpy(x), torch.tensor(y)


class StockDataLoader(DataLoader):
    """
    A random split would let the model look into the future, so BaseDataLoader is of no use here: the last days of the
    series are for validation
    """
    def __init__(self, data_dir, batch_size, shuffle=True, validation_split=0.2, num_workers=1, training=True,
                 window=16):
        self.data_dir = data_dir
        prices, volumes = make_prices(240, seed=0 if training else 1)
        n_train = int(len(prices) * (1 - validation_split))
        train_set = WindowDataset(prices[:n_train], volumes[:n_train], window)
        self.valid_dataset = None
        if validation_split > 0:
            self.valid_dataset = WindowDataset(prices[n_train - window:], volumes[n_train - window:], window,
                                               mean=train_set.mean, std=train_set.std)
        super().__init__(train_set, batch_size=batch_size, shuffle=shuffle, num_workers=num_workers)

    def split_validation(self):
        if self.valid_dataset is None:
            return None
        return DataLoader(self.valid_dataset, batch_size=self.batch_size, shuffle=False,
                          num_workers=self.num_workers)
