"""What a training step and an epoch are. Yours to change."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import islice
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader

from base import (
    BaseDataLoader,
    BaseTrainer,
    Ema,
    FiniteWatch,
    Microbatch,
    StepMeter,
    announce_step,
    counted,
    first_samples,
    name_samples,
    named_groups,
    weighted,
)
from distributed.choice import make_strategy
from logger import EpochProgress, heatmap
from parse_config import ConfigParser
from preflight import check_batch, check_run, join_processes, share_data, warn_of_wrong_means
from speed import StepGraph, StepProfiler, clip_gradients, input_format, lay_out, prefetch
from trainer.batch import BatchResult, batch_weight, run_batch
from trainer.evaluation import evaluate
from trainer.options import TrainerOptions
from utils import ConfigError, Metric, NonFiniteError, Stopped
from utils.nested import by_name

AUTOCAST_DTYPES = {"fp32": None, "tf32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Trainer(BaseTrainer):
    """Trains a model step by step; trainer/batch.py says what a batch is."""

    LOOP_OPTIONS: ClassVar[frozenset[str]] = frozenset(
        {
            *("len_epoch", "grad_accum_steps", "max_grad_norm", "ema_decay", "max_skipped_steps", "precision"),
            *("device_resident", "channels_last", "cuda_graph", "profile", "log_every_steps"),
            *("strategy", "virtual_ranks", "log_figures"),
        }
    )
    LOSSES: ClassVar[tuple[str, ...]] = ("loss",)
    """The losses that a step adds to `train_metrics`."""
    options: TrainerOptions

    def __init__(
        self,
        model: nn.Module,
        criterion: Callable[..., Tensor],
        metric_ftns: Sequence[Metric],
        optimizer: Any,
        config: ConfigParser,
        device: torch.device,
        data_loader: DataLoader[Any],
        valid_data_loader: DataLoader[Any] | None = None,
        lr_scheduler: Any = None,
        len_epoch: int | None = None,
    ) -> None:
        """`criterion` returns the mean loss of a batch. An epoch is one pass over the data, or `len_epoch` steps.

        Optimizer and scheduler are single objects, or dicts if the config has several.
        """
        super().__init__(model, criterion, metric_ftns, optimizer, config)
        self.device = device
        self.strategy = make_strategy(self.options, device, config["seed"])
        self.data_loader: Any = BaseDataLoader.adopt(data_loader)
        self.valid_data_loader = valid_data_loader
        self.lr_scheduler = lr_scheduler
        self.steps_per_epoch = len_epoch or self.options.len_epoch
        sections = by_name(config.section("lr_scheduler") if lr_scheduler else None)
        self.scheduler_intervals = {name: section.interval for name, section in sections.items()}
        is_channels_last = lay_out(model, self.options.channels_last, device, self._try_batch)
        config.resolve("trainer", {"channels_last": is_channels_last})
        self.parameters = self.freezing.parameters  # all that the optimizer trains, now or once unfrozen
        self._set_up_step()
        self.train_metrics = self.strategy.tracker(*self.LOSSES, metric_ftns=metric_ftns, device=device)
        self.valid_metrics = self.strategy.tracker("loss", metric_ftns=metric_ftns, device=device)

    def _set_up_step(self) -> None:
        """Build what the options of a step need; each has no effect when it is off."""
        options, device = self.options, self.device
        dtype = AUTOCAST_DTYPES[options.precision]
        self.max_grad_norm = options.max_grad_norm or math.inf
        self.autocast: AbstractContextManager[Any] = nullcontext()
        if dtype is not None:
            self.autocast = torch.autocast(device.type, dtype, cache_enabled=not options.cuda_graph)
        self.scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
        self.ema = Ema(self.model, options.ema_decay)
        max_skipped = options.max_skipped_steps if self.scaler.is_enabled() else 0
        self.watch = FiniteWatch(max_skipped, self.strategy.mean)
        self.meter = StepMeter(self, options.log_every_steps)
        self.profiler = StepProfiler(options.profile)
        self.step_graph: StepGraph | None = None  # made in the preflight

    def _train_epoch(self, epoch: int) -> dict[str, float]:
        """Train from `self.position` to the end of the epoch, then validate; return all values by name."""
        self.model.train()
        self.train_metrics.reset()
        train_step = self.step_graph or self._train_step
        with self.display.epoch(epoch, self.num_steps, self.position.step_in_epoch) as progress:
            for microbatches in self.meter.timed(self._on_device(self._steps(epoch))):
                loss, grad_norm = train_step(microbatches)
                self._watch_step(loss, grad_norm)
                self._step_scheduler("step")
                progress.step(sum(microbatch.num_samples for microbatch in microbatches))
                self._log_step(progress)
                self.profiler.step(self.checkpoint_dir, self.writer)
                self._after_step()
        self._check_finite()  # waits for the device, so that the time below is right
        speed = self.meter.epoch_values()
        valid_log = self._valid_epoch(epoch)
        self.board.show_images_of(self.ema.eval_model)
        # Read after validation, during which a run may be stopped and saved: the epoch is not over until then.
        log = self.train_metrics.result() | speed
        log |= {f"lr/{name}": group["lr"] for name, group in named_groups(self.optimizer).items()} | valid_log
        self._step_scheduler("epoch", log)
        return log

    def _train_step(self, microbatches: list[Microbatch]) -> tuple[Tensor, Tensor]:
        """Make one optimizer step; return its mean loss and the gradient's norm, on the device.

        Nothing here waits for the device or depends on the step's number, so it can be replayed as a CUDA graph.
        """
        weights = [batch_weight(self.criterion, batch, num_samples) for batch, num_samples in microbatches]
        weights, total = self.strategy.begin_step(microbatches, weights)
        shares = []
        self.optimizer.zero_grad(set_to_none=True)
        for (batch, num_samples), weight in self.strategy.passes(microbatches, weights):
            with self.autocast:
                loss, outputs, targets, num_counted = run_batch(self.model, self.criterion, batch)
            share = weighted(loss, weight, total())  # * weight / total: together the loss of one batch of all samples
            self.scaler.scale(share).backward()
            shares.append(share.detach())
            self.train_metrics.update("loss", loss, n=weight)
            self.train_metrics.update_metrics(outputs, targets, n=num_samples if num_counted is None else num_counted)
        step_loss = self.strategy.end_step(shares)
        self.scaler.unscale_(self.optimizer)  # before clipping, which needs the true norm
        grad_norm = clip_gradients(self.parameters, self.max_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.ema.update()
        return step_loss, grad_norm

    def _valid_epoch(self, epoch: int) -> dict[str, float]:
        """Return the loss and metrics over the validation split, named val_*; {} where there is none."""
        if self.valid_data_loader is None:
            return {}
        batches = self.display.follow(counted(self.valid_data_loader), "validation", len(self.valid_data_loader))
        microbatches = self._until_stopped(batches)
        try:
            model, observe = self.ema.eval_model, self.board.new_observer()
            values = evaluate(model, self.criterion, microbatches, self.valid_metrics, self.device, observe)
        except Stopped:
            self.valid_metrics.reset()  # a resumed run validates from the first batch
            raise
        self.writer.set_step(self.position.global_step, "valid")
        for name, matrix in self.valid_metrics.matrices.items():
            self.writer.add_image(name, heatmap(matrix))
        return {f"val_{name}": value for name, value in values.items()}

    def _steps(self, epoch: int) -> Iterator[list[Microbatch]]:
        """Yield the microbatches of each remaining step of the epoch."""
        first_step = self.position.step_in_epoch
        steps = self.data_loader.epoch_steps(epoch, first_step, **self._step_options)
        return islice(steps, self.num_steps - first_step)

    @property
    def num_steps(self) -> int:
        """The number of optimizer steps in an epoch."""
        num_steps = self.steps_per_epoch or self.data_loader.num_steps(self.options.grad_accum_steps)
        return min(num_steps, self.options.limit_batches or num_steps)

    @property
    def _step_options(self) -> dict[str, Any]:
        """What determines, with the epoch, which samples a step has."""
        return {
            "seed": self.config["seed"],
            "len_epoch": self.steps_per_epoch,
            "grad_accum_steps": self.options.grad_accum_steps,
        }

    def _on_device(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Yield the batches on the device, images in the model's memory format."""
        return prefetch(batches, self.device, input_format(self.model))

    def _until_stopped(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Yield the batches; raise Stopped after a signal, or WorkerDiedError. The run can be saved at both."""
        try:
            for batch in batches:
                self.strategy.meet()
                self._stop_if_asked()
                yield batch
        except Exception as error:
            self.loop.report_dead_worker(error)
            raise

    def _step_scheduler(self, interval: str, log: dict[str, float] | None = None) -> None:
        """Step each scheduler that has this `interval`; ReduceLROnPlateau gets the monitored value of `log`."""
        for name, scheduler in by_name(self.lr_scheduler).items():
            if self.scheduler_intervals[name] != interval:
                continue
            if isinstance(scheduler, ReduceLROnPlateau):
                assert log is not None, "ReduceLROnPlateau steps per epoch"
                scheduler.step(log[self.monitor.metric])
            else:
                scheduler.step()

    def _watch_step(self, loss: Tensor, grad_norm: Tensor) -> None:
        """Record the step for `_check_finite`, without waiting for the device."""
        first = next(iter(by_name(self.optimizer).values()))
        self.watch.add(self.position, first.param_groups[0]["lr"], loss, grad_norm)

    def _check_finite(self) -> None:
        """Raise NonFiniteError if a step since the last check had a NaN or infinity. Waits for the device."""
        bad = self.watch.first_bad()
        if bad is None:
            return
        step, reason = bad
        indices = self.data_loader.step_indices(step.epoch, step.step_in_epoch, **self._step_options)
        raise NonFiniteError(
            f"epoch {step.epoch}, step {step.step_in_epoch} (global step {step.global_step}): {reason}; "
            f"lr {step.lr:.4g}; {name_samples(indices)}; the last checkpoint in {self.checkpoint_dir} is from before it"
        )

    def _preflight(self) -> None:
        """Place the data; raise ConfigError if the parts that the config names do not work together."""
        if isinstance(self.optimizer, dict) and type(self)._train_step is Trainer._train_step:
            raise ConfigError(
                f"optimizer: there are several ({', '.join(self.optimizer)}), and {type(self).__name__} steps one; let "
                "trainer.type name a class of trainer/ that overrides _train_step, as GanTrainer does"
            )
        # What "auto" resolved to stays with the run: an augmentation may round otherwise on another device.
        is_resident = self.data_loader.place(self.device, self.options.device_resident)
        self.config.resolve("trainer", {"device_resident": is_resident})
        share_data(self)
        check_run(self)
        self.step_graph = StepGraph(self._train_step, self.optimizer) if self.options.cuda_graph else None
        check_batch(self, self._try_batch)
        join_processes(self, self._try_batch)
        warn_of_wrong_means(self, evaluate)

    def _try_batch(self, size: int = 8, loader: Any = None, is_training: bool = False) -> BatchResult:
        """Return loss, outputs and targets of the first samples of a loader, computed as in a step or in validation."""
        self.model.train(is_training)
        [(batch, _)] = self._on_device([first_samples(loader or self.data_loader, size)])
        with torch.set_grad_enabled(is_training), self.autocast if is_training else nullcontext():
            return run_batch(self.model, self.criterion, batch)

    def _log_samples(self) -> None:
        """Show the model's graph and, if they are images, the first samples."""
        [(batch, _)] = self._on_device([self.data_loader.peek(32)])
        self.board.show_samples(batch, partial(run_batch, self.model, self.criterion))

    def _log_step(self, progress: EpochProgress) -> None:
        """Log and show loss and speed every `log_every_steps` steps, the only ones after which the host waits."""
        global_step = self.position.global_step + 1  # including this one
        if global_step % self.options.log_every_steps == 0:
            self._check_finite()
            values = {"loss": self.watch.last_loss, "grad_norm": self.watch.last_grad_norm} | self.meter.step_values()
            progress.show(values)
            announce_step(self, values)
