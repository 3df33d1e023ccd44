"""How this project trains and evaluates. Yours to change."""

from trainer.batch import BatchResult, run_batch
from trainer.evaluation import evaluate
from trainer.trainer import Trainer

__all__ = ["BatchResult", "Trainer", "evaluate", "run_batch"]
