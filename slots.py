"""What each section of the config may name. A section of your own (a discriminator, a teacher) is one more line."""

from __future__ import annotations

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from base import BaseDataLoader, BaseModel
from utils.slot import Slot

# A package is imported when a name is looked up in it: a config without torchmetrics does not wait 2 s for it.
SLOTS = {
    "arch": Slot(("model.model",), base=BaseModel),
    "data_loader": Slot(("data_loader",), base=BaseDataLoader, provided=("training",)),
    # LBFGS wants a closure, SparseAdam sparse gradients: other training steps than that of trainer/trainer.py.
    "optimizer": Slot(("torch.optim",), base=Optimizer, provided=("params",), excluded=("LBFGS", "SparseAdam")),
    # The trainer weights the means of batches by their samples: a sum would be wrong, and no reduction no number.
    "loss": Slot(
        ("model.loss", "torch.nn.modules.loss"),
        base=nn.Module,
        num_inputs=2,
        provided=("reduction", "reduce", "size_average"),
    ),
    "metrics": Slot(
        ("model.metric", "torchmetrics", "torchmetrics.classification", "torchmetrics.regression"),
        base=nn.Module,
        num_inputs=2,
    ),
    "lr_scheduler": Slot(("torch.optim.lr_scheduler",), base=LRScheduler, provided=("optimizer",)),
    "lr_lambda": Slot(("model.lr_lambda",), num_inputs=1),
}
