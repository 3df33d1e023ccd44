"""The abstract classes that a project subclasses."""

from base.base_data_loader import BaseDataLoader
from base.base_model import BaseModel
from base.base_trainer import BaseTrainer
from base.batch_dataset import AugmentedBatches, BatchDataset, MappedBatches, TensorBatches

__all__ = [
    "AugmentedBatches",
    "BaseDataLoader",
    "BaseModel",
    "BaseTrainer",
    "BatchDataset",
    "MappedBatches",
    "TensorBatches",
]
