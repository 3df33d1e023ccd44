"""What each section of the config may name, and the keys of its own that it holds. Yours to change.

A section that builds something is a Slot; a section of plain keys is a subclass of Options. A section of your own (a
discriminator, a teacher) is one more line. An argument takes a type of its own, with args, where `nested` says so.
"""

from __future__ import annotations

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader, Sampler

from base import BaseTrainer
from parse_config import MetricSection, OptimizerSection, Options, SchedulerSection, Slot
from trainer.options import TrainerOptions

SLOTS: dict[str, Slot | type[Options]] = {
    "arch": Slot(
        ("model.*",),
        base=nn.Module,
        factories=True,
        provided=("is_new", "trusted_repos"),
        required=True,
        named=True,
        has_state=True,
        description="model: a class of model/, or a function there that returns one; or several by name",
    ),
    "data_loader": Slot(
        ("data_loader.*",),
        base=DataLoader,
        provided=("training",),
        nested={
            "train_transform": "transform",
            "valid_transform": "transform",
            "sampler": "sampler",
            "collate": "collate",
        },
        required=True,
        description="data: a class of data_loader/",
    ),
    "optimizer": Slot(
        ("torch.optim",),
        base=Optimizer,
        provided=("params",),
        groups="params",
        keys=OptimizerSection,
        # LBFGS wants a closure, SparseAdam sparse gradients: other training steps than that of trainer/trainer.py.
        excluded=("LBFGS", "SparseAdam"),
        required=True,
        named=True,
        has_state=True,
        description="a class of torch.optim; or several by name",
    ),
    "loss": Slot(
        ("model.loss", "torch.nn.modules.loss"),
        base=nn.Module,
        num_inputs=2,
        # The trainer weights the means of batches by their samples: a sum would be wrong, and no reduction no number.
        provided=("reduction", "reduce", "size_average"),
        required=True,
        description="a function of model/loss.py or a loss class of torch.nn",
    ),
    "metrics": Slot(
        ("model.metric", "torchmetrics", "torchmetrics.classification", "torchmetrics.regression"),
        base=nn.Module,
        num_inputs=2,
        keys=MetricSection,
        many=True,
        description="functions of model/metric.py or torchmetrics classes",
    ),
    "lr_scheduler": Slot(
        ("torch.optim.lr_scheduler",),
        base=LRScheduler,
        provided=("optimizer",),
        nested={"schedulers": "lr_scheduler", "lr_lambda": "lr_lambda"},
        keys=SchedulerSection,
        named=True,
        has_state=True,
        description="a class of torch.optim.lr_scheduler; or several by the names of optimizers",
    ),
    "trainer": TrainerOptions,
    "trainer.type": Slot(("trainer.*",), base=BaseTrainer, is_section=False),  # a plain key that names a class
    # What arguments name, as `nested` says above:
    "lr_lambda": Slot(
        ("model.lr_lambda",),
        num_inputs=1,
        is_section=False,
        description="an expression or a function of model/lr_lambda.py",
    ),
    "transform": Slot(
        ("data_loader.transforms", "torchvision.transforms.v2"),
        base=nn.Module,
        nested={"transforms": "transform"},
        # These take what JSON has not, or whole batches; make several images of one; or are deprecated.
        excluded=("Transform", "Lambda", "LinearTransformation", "CutMix", "MixUp", "FiveCrop", "TenCrop", "ToTensor"),
        is_section=False,
        description="transforms of torchvision.transforms.v2 or data_loader/transforms.py",
    ),
    "sampler": Slot(
        ("data_loader.samplers", "torch.utils.data.sampler"),
        base=Sampler,
        factories=True,
        provided=("samples", "data_source", "generator"),
        nested={"sampler": "sampler"},
        excluded={
            "BatchSampler": 'give "batch"',
            "DistributedSampler": "it is not needed: every process takes its part of the one global order by itself",
        },
        is_section=False,
        description="a function of data_loader/samplers.py or a sampler of torch.utils.data",
    ),
    "collate": Slot(
        ("data_loader.collate",),
        num_inputs=1,
        is_section=False,
        description="a function of data_loader/collate.py that makes a batch of a list of samples",
    ),
}
