"""How this project trains and evaluates."""

from trainer.batch_size import PROBE, largest_batch_size
from trainer.check import rehearse
from trainer.evaluation import evaluate
from trainer.trainer import Trainer

__all__ = ["PROBE", "Trainer", "evaluate", "largest_batch_size", "rehearse"]
