"""The abstract classes that a project subclasses, and what their trainers are made of."""

from base.announce import announce_step
from base.bad_label import name_samples
from base.base_data_loader import BaseDataLoader, counted
from base.base_model import BaseModel, param_groups, prepare_model
from base.base_trainer import BaseTrainer
from base.datasets import AugmentedBatches, BatchDataset, TensorBatches
from base.ema import Ema
from base.finite import FiniteWatch
from base.groups import named_groups
from base.loss_weight import Weight, loss_denominator, weighted
from base.mapped import MappedBatches
from base.meter import StepMeter
from base.microbatch import Microbatch, first_samples
from base.new_inputs import Chunk, NewInputs
from base.splits import split_indices
from base.transforms import TransformedBatches

__all__ = [
    "AugmentedBatches",
    "BaseDataLoader",
    "BaseModel",
    "BaseTrainer",
    "BatchDataset",
    "Chunk",
    "Ema",
    "FiniteWatch",
    "MappedBatches",
    "Microbatch",
    "NewInputs",
    "StepMeter",
    "TensorBatches",
    "TransformedBatches",
    "Weight",
    "announce_step",
    "counted",
    "first_samples",
    "loss_denominator",
    "name_samples",
    "named_groups",
    "param_groups",
    "prepare_model",
    "split_indices",
    "weighted",
]
