"""The abstract classes that a project subclasses."""

from base.base_data_loader import BaseDataLoader
from base.base_model import BaseModel
from base.base_trainer import BaseTrainer
from base.batch_dataset import BatchDataset, MappedBatches, TensorBatches

__all__ = ["BaseDataLoader", "BaseModel", "BaseTrainer", "BatchDataset", "MappedBatches", "TensorBatches"]
