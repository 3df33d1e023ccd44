"""A whole project in one file, for the engine's tests: slots, data, models, losses, two trainers, train and evaluate.

It stands on the engine alone, as a fork does, so these tests hold whatever a fork makes of the examples.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch.utils.data import DataLoader, Dataset

from base import (
    AugmentedBatches,
    BaseDataLoader,
    BaseModel,
    BaseTrainer,
    Microbatch,
    TensorBatches,
    counted,
    first_samples,
    param_groups,
    prepare_model,
)
from checkpoint.file import BEST, load_checkpoint
from checkpoint.parts import eval_weights, saved_facts
from parse_config import (
    ConfigParser,
    CustomArg,
    MetricSection,
    OptimizerSection,
    Options,
    SchedulerSection,
    Section,
    Slot,
    TrainerOptions,
)
from parse_config.command_line import add_run_flags
from preflight import check_batch, check_run, choose_batch_size, rehearse
from speed import fast_kernels, prefetch, set_process_modes
from utils import Metric, MetricTracker, exit_on_user_error, inf_loop, prepare_device, seed_everything
from utils.annotations import MAY_CHANGE, BatchSize, NonNegativeInt, PositiveInt, Probability, Share
from utils.nested import by_name
from utils.weights import load_weights

NUM_FEATURES, NUM_CLASSES, NUM_SAMPLES = 4, 3, 34

CONFIG: dict[str, Any] = {
    "name": "toy",
    "n_gpu": 0,
    "seed": 0,
    "arch": {"type": "ToyNet", "args": {"dropout": 0.2}},
    "data_loader": {
        "type": "SampleLoader",
        "args": {"batch_size": 5, "shuffle": True, "validation_split": 6, "num_workers": 0},
    },
    "optimizer": {"type": "Adam", "args": {"lr": 0.01}},
    "loss": "toy_loss",
    "metrics": ["accuracy"],
    "lr_scheduler": {"type": "LambdaLR", "args": {"lr_lambda": "0.9 ** epoch"}},
    "trainer": {
        "epochs": 2,
        "save_dir": "saved/",
        "save_period": 1,
        "monitor": "min val_loss",
        "early_stop": 10,
        "log_every_steps": 1,
    },
}
"""6 steps an epoch, the last of 3 samples; 6 samples for validation."""


# The config: own sections and keys.


class ToyOptions(TrainerOptions):
    """The engine's keys and two of the toy's own."""

    LOGGED: ClassVar[tuple[str, ...]] = ("stretched_loss",)

    loop: Literal["counted", "plain"] = Field(default="counted", description="which of the toy's trainers")
    stretch: float = Field(default=1.0, gt=0, description="factor of the loss")


class Curriculum(Options):
    """A section of plain keys."""

    first_epoch: int = Field(default=1, ge=1, description="when it begins")
    note: Annotated[str, MAY_CHANGE] = Field(default="", description="what for")


class TeacherSection(Section):
    """A section that builds something, with a key of its own."""

    weight: float = Field(default=0.5, ge=0, description="share of the teacher's loss")


SLOTS: dict[str, Slot | type[Options]] = {
    "arch": Slot(
        ("toy",), base=nn.Module, factories=True, required=True, named=True, has_state=True, description="a model"
    ),
    "data_loader": Slot(("toy",), base=DataLoader, provided=("training",), required=True, description="data"),
    "optimizer": Slot(
        ("torch.optim",),
        base=Optimizer,
        provided=("params",),
        groups="params",
        keys=OptimizerSection,
        excluded=("LBFGS", "SparseAdam"),
        required=True,
        named=True,
        has_state=True,
    ),
    "loss": Slot(
        ("toy", "torch.nn.modules.loss"),
        base=nn.Module,
        num_inputs=2,
        provided=("reduction", "reduce", "size_average"),
        required=True,
    ),
    "metrics": Slot(
        ("toy", "torchmetrics", "torchmetrics.classification", "torchmetrics.regression"),
        base=nn.Module,
        num_inputs=2,
        keys=MetricSection,
        many=True,
    ),
    "lr_scheduler": Slot(
        ("torch.optim.lr_scheduler",),
        base=LRScheduler,
        provided=("optimizer",),
        nested={"schedulers": "lr_scheduler"},
        keys=SchedulerSection,
        named=True,
        has_state=True,
    ),
    "lr_lambda": Slot(("toy",), num_inputs=1),
    "teacher": Slot(("toy",), base=nn.Module, factories=True, keys=TeacherSection, has_state=True),
    "curriculum": Curriculum,
    "trainer": ToyOptions,
}
OPTIONS = [
    CustomArg(["--lr", "--learning_rate"], type=float, target="optimizer;args;lr"),
    CustomArg(["--bs", "--batch_size"], type=int, target="data_loader;args;batch_size"),
]


# Data: points in four dimensions, of three classes.


def _make_data(num_samples: int, training: bool) -> tuple[Tensor, Tensor]:
    """Return inputs (N, 4) float32 and classes (N,) int64; the test split is another draw."""
    generator = torch.Generator().manual_seed(0 if training else 1)
    inputs = torch.randn(num_samples, NUM_FEATURES, generator=generator)
    return inputs, (inputs[:, 0] > 0).long() + (inputs[:, 1] > 0).long()


class NoisySamples(Dataset[tuple[Tensor, Tensor]]):
    """Single samples with noise from torch's global generator, as a random transform draws it."""

    def __init__(self, inputs: Tensor, targets: Tensor, noise: float) -> None:
        self.inputs, self.targets, self.noise = inputs, targets, noise

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.inputs[index] + self.noise * torch.randn(NUM_FEATURES), self.targets[index]


class SampleLoader(BaseDataLoader):
    """Batches collated from single samples."""

    num_classes = NUM_CLASSES

    def __init__(
        self,
        batch_size: BatchSize,
        shuffle: bool = True,
        validation_split: Share = 0.0,
        num_workers: NonNegativeInt = 0,
        training: bool = True,
        *,
        num_samples: PositiveInt = NUM_SAMPLES,
        noise: Probability = 0.1,
    ) -> None:
        dataset = NoisySamples(*_make_data(num_samples, training), noise if training else 0.0)
        super().__init__(dataset, batch_size, shuffle, validation_split, num_workers, training=training)


class TensorLoader(BaseDataLoader):
    """Whole batches, augmented as a whole; a `source` of "auto" resolves to "generated"."""

    num_classes = NUM_CLASSES

    def __init__(
        self,
        batch_size: BatchSize,
        shuffle: bool = True,
        validation_split: Share = 0.0,
        num_workers: NonNegativeInt = 0,
        training: bool = True,
        *,
        num_samples: PositiveInt = NUM_SAMPLES,
        source: Literal["auto", "generated"] = "auto",
    ) -> None:
        plain = TensorBatches(*_make_data(num_samples, training))
        dataset = AugmentedBatches(plain, lambda inputs, uniforms: inputs + uniforms[:, :NUM_FEATURES] / 10)
        split = (batch_size, shuffle, validation_split, num_workers)
        super().__init__(dataset if training else plain, *split, training=training, valid_dataset=plain)
        self.resolved_args["source"] = "generated"


class CountingLoader(TensorLoader):
    """One that says how many training samples each class has."""

    def facts(self) -> dict[str, Any]:
        """Return the counts, (3,) int64."""
        targets = torch.cat([targets for _, targets in self.train_samples()])
        return {"class_counts": torch.bincount(targets, minlength=NUM_CLASSES)}


# Models, a loss, a metric, a schedule.


class ToyNet(BaseModel):
    """Two linear layers with batch norm and dropout between them; centres its inputs by the training split's mean."""

    mean: Tensor

    def __init__(
        self, width: PositiveInt = 8, dropout: Probability = 0.0, num_classes: PositiveInt = NUM_CLASSES
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(NUM_FEATURES))
        self.hidden = nn.Linear(NUM_FEATURES, width)
        self.norm = nn.BatchNorm1d(width)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, num_classes)

    def adapt(self, data_loader: Any) -> None:
        """Take the mean of the training inputs."""
        self.mean = torch.cat([inputs for inputs, _ in data_loader.train_samples()]).mean(dim=0)

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, 4) float -> logits (N, num_classes)."""
        return self.head(self.dropout(F.relu(self.norm(self.hidden(inputs - self.mean)))))


class PriorNet(ToyNet):
    """One that begins with the share of each class, which the data knows."""

    def __init__(self, class_counts: Tensor, width: PositiveInt = 8) -> None:
        super().__init__(width)
        self.head.bias.data = (class_counts / class_counts.sum()).log()


def narrow_net(width: PositiveInt = 2) -> nn.Module:
    """Return a model: a factory."""
    return ToyNet(width)


def toy_loss(outputs: Tensor, targets: Tensor, smoothing: Probability = 0.0) -> Tensor:
    """Cross entropy of logits (N, C) and classes (N,)."""
    return F.cross_entropy(outputs, targets, label_smoothing=smoothing)


def balanced_loss(outputs: Tensor, targets: Tensor, class_counts: Tensor) -> Tensor:
    """Cross entropy in which a class counts the more the rarer it is."""
    return F.cross_entropy(outputs, targets, weight=1 / class_counts)


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Share of right answers."""
    return (outputs.argmax(dim=1) == targets).float().mean()


def top_k(outputs: Tensor, targets: Tensor, k: PositiveInt = 2) -> Tensor:
    """Share of samples whose class is among the k highest."""
    return (outputs.topk(k, dim=1).indices == targets.unsqueeze(1)).any(dim=1).float().mean()


def inverse_decay(position: int, rate: Probability, offset: NonNegativeInt = 0) -> float:
    """A factor of the learning rate."""
    return 1 / (1 + rate * (position + offset))


# Two trainers.


@torch.no_grad()
def _measure(
    model: nn.Module, criterion: Any, batches: Iterable[Microbatch], metrics: MetricTracker, device: torch.device
) -> dict[str, float]:
    """Return loss and metrics over all samples of `batches`."""
    model.eval()
    metrics.reset()
    for (inputs, targets), num_samples in prefetch(batches, device):
        outputs = model(inputs)
        metrics.update("loss", criterion(outputs, targets), n=num_samples)
        metrics.update_metrics(outputs, targets, n=num_samples)
    return metrics.result()


class Result(NamedTuple):
    """What a batch gave."""

    loss: Tensor
    outputs: Tensor
    targets: Tensor


class ToyTrainer(BaseTrainer):
    """A loop that counts its own steps."""

    LOOP_OPTIONS: ClassVar[frozenset[str]] = frozenset({"len_epoch", "grad_accum_steps", "log_every_steps"})
    options: ToyOptions

    def __init__(
        self,
        model: nn.Module,
        criterion: Callable[..., Tensor],
        metric_ftns: Sequence[Metric],
        optimizer: Optimizer,
        config: ConfigParser,
        device: torch.device,
        data_loader: BaseDataLoader,
        valid_data_loader: DataLoader[Any] | None = None,
        lr_scheduler: LRScheduler | None = None,
    ) -> None:
        super().__init__(model, criterion, metric_ftns, optimizer, config)
        self.device = device
        self.data_loader = data_loader
        self.valid_data_loader = valid_data_loader
        self.lr_scheduler = lr_scheduler
        sections = by_name(config.section("lr_scheduler") if lr_scheduler else None)
        self.scheduler_intervals = {name: section.interval for name, section in sections.items()}
        self.teacher = config.init_obj("teacher")
        self.train_metrics = MetricTracker("loss", metric_ftns=metric_ftns, device=device)
        self.valid_metrics = MetricTracker("loss", metric_ftns=metric_ftns, device=device)

    @property
    def num_steps(self) -> int:
        """The number of optimizer steps in an epoch."""
        num_steps = self.options.len_epoch or self.data_loader.num_steps(self.options.grad_accum_steps)
        return min(num_steps, self.options.limit_batches or num_steps)

    def _preflight(self) -> None:
        check_run(self)
        check_batch(self, self._try_batch)

    def _try_batch(self, size: int, loader: Any, is_training: bool) -> Result:
        self.model.train(is_training)
        inputs, targets = first_samples(loader, size).batch
        with torch.set_grad_enabled(is_training):
            outputs = self.model(inputs)
            return Result(self.criterion(outputs, targets), outputs, targets)

    def _train_epoch(self, epoch: int) -> dict[str, float]:
        self.model.train()
        self.train_metrics.reset()
        first_step, options = self.position.step_in_epoch, self.options
        steps = self.data_loader.epoch_steps(
            epoch,
            first_step,
            seed=self.config["seed"],
            len_epoch=options.len_epoch,
            grad_accum_steps=options.grad_accum_steps,
        )
        for microbatches in islice(steps, self.num_steps - first_step):
            loss = self._train_step(microbatches)
            self._step_scheduler("step")
            if self.run_log is not None:
                self.run_log.log_step(epoch, self.position.global_step + 1, {"loss": loss})
            self._after_step()
        log = self.train_metrics.result()
        log["stretched_loss"] = options.stretch * log["loss"]
        log |= self._valid_epoch(epoch)
        self._step_scheduler("epoch", log)
        return log

    def _train_step(self, microbatches: list[Microbatch]) -> float:
        total, step_loss = sum(num_samples for _, num_samples in microbatches), 0.0
        self.optimizer.zero_grad()
        for (inputs, targets), num_samples in microbatches:
            outputs = self.model(inputs)
            loss = self.criterion(outputs, targets) * (num_samples / total)
            (self.options.stretch * loss).backward()
            step_loss += loss.item()
            self.train_metrics.update_metrics(outputs, targets, n=num_samples)
        self.optimizer.step()
        self.train_metrics.update("loss", step_loss, n=total)
        return step_loss

    def _valid_epoch(self, epoch: int) -> dict[str, float]:
        if self.valid_data_loader is None:
            return {}
        batches = counted(self.valid_data_loader)
        values = _measure(self.model, self.criterion, batches, self.valid_metrics, self.device)
        return {f"val_{name}": value for name, value in values.items()}

    def _step_scheduler(self, interval: str, log: dict[str, float] | None = None) -> None:
        for name, scheduler in by_name(self.lr_scheduler).items():
            if self.scheduler_intervals[name] != interval:
                continue
            if isinstance(scheduler, ReduceLROnPlateau):
                assert log is not None, "ReduceLROnPlateau steps per epoch"
                scheduler.step(log[self.monitor.metric])
            else:
                scheduler.step()


class PlainTrainer(BaseTrainer):
    """A trainer as forks of the published template (2020) have it, to the letter, but for the types."""

    def __init__(
        self,
        model: nn.Module,
        criterion: Callable[..., Tensor],
        metric_ftns: Sequence[Any],
        optimizer: Optimizer,
        config: ConfigParser,
        device: torch.device,
        data_loader: Any,
        valid_data_loader: Any = None,
        lr_scheduler: Any = None,
        len_epoch: int | None = None,
    ) -> None:
        super().__init__(model, criterion, metric_ftns, optimizer, config)
        self.config = config
        self.device = device
        self.data_loader = data_loader
        if len_epoch is None:
            # epoch-based training
            self.len_epoch = len(self.data_loader)
        else:
            # iteration-based training
            self.data_loader = inf_loop(data_loader)
            self.len_epoch = len_epoch
        self.valid_data_loader = valid_data_loader
        self.do_validation = self.valid_data_loader is not None
        self.lr_scheduler = lr_scheduler
        self.log_step = int(data_loader.batch_size**0.5)

        self.train_metrics = MetricTracker("loss", *[m.__name__ for m in self.metric_ftns], writer=self.writer)
        self.valid_metrics = MetricTracker("loss", *[m.__name__ for m in self.metric_ftns], writer=self.writer)

    def _train_epoch(self, epoch: int) -> dict[str, float]:
        self.model.train()
        self.train_metrics.reset()
        for batch_idx, (data, target) in enumerate(self.data_loader):
            data, target = data.to(self.device), target.to(self.device)

            self.optimizer.zero_grad()
            output = self.model(data)
            loss = self.criterion(output, target)
            loss.backward()
            self.optimizer.step()

            self.writer.set_step((epoch - 1) * self.len_epoch + batch_idx)
            self.train_metrics.update("loss", loss.item())
            for met in self.metric_ftns:
                self.train_metrics.update(met.__name__, met(output, target))

            if batch_idx % self.log_step == 0:
                self.logger.debug(f"Train Epoch: {epoch} {batch_idx} Loss: {loss.item():.6f}")

            if batch_idx == self.len_epoch:
                break
        log = self.train_metrics.result()

        if self.do_validation:
            val_log = self._valid_epoch(epoch)
            log.update(**{"val_" + k: v for k, v in val_log.items()})

        if self.lr_scheduler is not None:
            self.lr_scheduler.step()
        return log

    def _valid_epoch(self, epoch: int) -> dict[str, float]:
        self.model.eval()
        self.valid_metrics.reset()
        with torch.no_grad():
            for batch_idx, (data, target) in enumerate(self.valid_data_loader):
                data, target = data.to(self.device), target.to(self.device)

                output = self.model(data)
                loss = self.criterion(output, target)

                self.writer.set_step((epoch - 1) * len(self.valid_data_loader) + batch_idx, "valid")
                self.valid_metrics.update("loss", loss.item())
                for met in self.metric_ftns:
                    self.valid_metrics.update(met.__name__, met(output, target))

        # add histogram of model parameters to the tensorboard
        for name, p in self.model.named_parameters():
            self.writer.add_histogram(name, p, bins="auto")
        return self.valid_metrics.result()


# What train.py and test.py do.

TrainerClass = Callable[..., BaseTrainer]
TRAINERS: dict[str, TrainerClass] = {"counted": ToyTrainer, "plain": PlainTrainer}


def build_trainer(config: ConfigParser, trainer_class: TrainerClass | None = None, **kwargs: Any) -> BaseTrainer:
    """Build the objects that the config names, and the trainer that trains them; by default that of `trainer.loop`."""
    options: ToyOptions = config.section("trainer")
    device, _ = prepare_device(config["n_gpu"], config["device"])
    set_process_modes(options, device)

    seed_everything(config["seed"])
    data_loader = config.init_obj("data_loader")
    valid_data_loader = data_loader.split_validation()

    seed_everything(config["seed"])
    model = prepare_model(config.init_obj("arch"), data_loader, config, device)
    criterion = config.init_obj("loss")
    metrics = config.init_obj("metrics")

    params = param_groups(model, config["optimizer"])
    config.resolve("optimizer", fast_kernels(config.init_ftn("optimizer"), params, options))
    optimizer = config.init_obj("optimizer", params=params)
    lr_scheduler = config.init_obj("lr_scheduler", optimizer=optimizer)

    return (trainer_class or TRAINERS[options.loop])(
        model,
        criterion,
        metrics,
        optimizer,
        config=config,
        device=device,
        data_loader=data_loader,
        valid_data_loader=valid_data_loader,
        lr_scheduler=lr_scheduler,
        **kwargs,
    )


def main(config: ConfigParser, trainer_class: TrainerClass | None = None, **kwargs: Any) -> BaseTrainer:
    """Train, or resume training, as the config says, or with --check only rehearse; return the trainer."""

    def build(config: ConfigParser) -> BaseTrainer:
        return build_trainer(config, trainer_class, **kwargs)

    choose_batch_size(config, build)
    trainer = build(config)
    if config.is_rehearsal:
        print("\n".join(rehearse(trainer)))
    else:
        trainer.train()
    return trainer


def parse_args(argv: list[str] | None = None) -> ConfigParser:
    """Return the config that the command line asks for. Raises UserErrors."""
    parser = argparse.ArgumentParser(prog="toy.py", description=__doc__, allow_abbrev=False)
    add_run_flags(parser)
    return ConfigParser.from_args(parser, OPTIONS, slots=SLOTS, argv=argv)


def evaluate(argv: list[str]) -> dict[str, float]:
    """Return loss and metrics of a checkpoint over the whole test split, as test.py does."""
    parser = argparse.ArgumentParser(prog="toy.py", allow_abbrev=False)
    for flag in ("-r/--resume", "-c/--config", "-d/--device"):
        parser.add_argument(*flag.split("/"))
    config = ConfigParser.from_args(parser, OPTIONS, slots=SLOTS, argv=argv, prefer=BEST)
    path = config.resume or config.init_from
    assert path is not None, "give -r"
    checkpoint = load_checkpoint(path)
    data_loader = config.init_obj("data_loader", training=False)
    config.facts = saved_facts(checkpoint, config.facts)
    model = config.init_obj("arch")
    load_weights(model, eval_weights(checkpoint), str(path))
    metrics = MetricTracker("loss", metric_ftns=config.init_obj("metrics"))
    return _measure(model, config.init_obj("loss"), counted(data_loader), metrics, torch.device("cpu"))


if __name__ == "__main__":
    with exit_on_user_error():
        main(parse_args())
