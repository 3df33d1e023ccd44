"""How this project trains and evaluates."""

from trainer.check import rehearse
from trainer.evaluation import evaluate
from trainer.trainer import Trainer

__all__ = ["Trainer", "evaluate", "rehearse"]
