"""This project's data. A config's `data_loader.type` is one of these names."""

from data_loader.csv_data import CsvDataLoader
from data_loader.mnist import MnistDataLoader

__all__ = ["CsvDataLoader", "MnistDataLoader"]
