"""What a training step and an epoch are. This file is yours to change."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch.utils.data import DataLoader
from tqdm import tqdm

from base import BaseDataLoader, BaseTrainer
from parse_config import ConfigParser
from trainer.config_check import check_config, try_batch
from trainer.evaluation import evaluate
from utils import Metric, MetricTracker, NonFiniteError
from utils.acceleration import clip_gradients, input_format
from utils.device import prefetch
from utils.ema import Ema
from utils.finite import FiniteWatch
from utils.load_parts import Stateful
from utils.profiling import StepProfiler
from utils.step_graph import StepGraph

AUTOCAST_DTYPES = {"fp32": None, "tf32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Trainer(BaseTrainer):
    """Trains a model on batches of (inputs, targets)."""

    def __init__(
        self,
        model: nn.Module,
        criterion: Callable[[Any, Any], Tensor],
        metric_ftns: Sequence[Metric],
        optimizer: torch.optim.Optimizer,
        config: ConfigParser,
        device: torch.device,
        data_loader: BaseDataLoader,
        valid_data_loader: DataLoader[Any] | None = None,
        lr_scheduler: LRScheduler | None = None,
        len_epoch: int | None = None,
    ) -> None:
        """`criterion` gives the mean loss of a batch. An epoch is the data once, or `len_epoch` steps where given.

        Raises ConfigError where the config monitors a value that this run does not give.
        """
        super().__init__(model, criterion, metric_ftns, optimizer, config)
        self.device = device
        self.data_loader = data_loader
        self.valid_data_loader = valid_data_loader
        self.lr_scheduler = lr_scheduler
        self.scheduler_interval = (config["lr_scheduler"] or {}).get("interval", "epoch")
        self.step_options: dict[str, Any] = {
            "seed": config["seed"],
            "len_epoch": len_epoch or self.options["len_epoch"],
            "grad_accum_steps": self.options["grad_accum_steps"],
        }
        # What "auto" came to stays with the run: an augmentation may round otherwise on another device.
        self.options["device_resident"] = data_loader.place(device, self.options["device_resident"])
        self.image_format = input_format(model)
        self.parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        # Turned off, these change nothing: that spares the training step its branches.
        self.max_grad_norm: float = self.options["max_grad_norm"] or math.inf
        autocast_dtype = AUTOCAST_DTYPES[self.options["precision"]]
        self.autocast: AbstractContextManager[Any] = nullcontext()
        if autocast_dtype is not None:
            self.autocast = torch.autocast(device.type, autocast_dtype, cache_enabled=not self.options["cuda_graph"])
        self.scaler = torch.amp.GradScaler(device.type, enabled=autocast_dtype == torch.float16)
        self.ema = Ema(model, self.options["ema_decay"])

        self.profiler = StepProfiler(self.options["profile"])
        max_skipped_steps = self.options["max_skipped_steps"] if self.scaler.is_enabled() else 0
        self.watch = FiniteWatch(max_skipped_steps)
        whole_epoch = self.step_options["len_epoch"] or data_loader.num_steps(self.step_options["grad_accum_steps"])
        self.num_steps: int = min(whole_epoch, self.options["limit_batches"] or whole_epoch)  # of an epoch
        self.train_metrics = MetricTracker("loss", metric_ftns=metric_ftns, device=device)
        self.valid_metrics = MetricTracker("loss", metric_ftns=metric_ftns, device=device)
        check_config(self)
        self.step_graph = StepGraph(self._train_step, optimizer) if self.options["cuda_graph"] else None

    def _train_epoch(self, epoch: int) -> dict[str, float]:
        """Train from `self.position` to the end of the epoch, then validate; return all values by name."""
        self.model.train()
        first_step = self.position.step_in_epoch
        if first_step == 0:
            self.train_metrics.reset()
        started, num_samples = time.perf_counter(), 0
        train_step = self.step_graph or self._train_step
        with self._progress_bar(epoch) as bar:
            steps = self.data_loader.epoch_steps(epoch, first_step, **self.step_options)
            for microbatches in self._on_device(islice(steps, self.num_steps - first_step)):
                loss, grad_norm = train_step(microbatches)
                self._watch_step(loss, grad_norm)
                self._step_scheduler("step")
                num_samples += sum(len(targets) for _, targets in microbatches)
                bar.update()
                self._log_step(loss, bar)
                self.profiler.step(self.checkpoint_dir)
                self._after_step()
        self._check_finite()
        log = self.train_metrics.result()  # waits for the device, so that the time below is the true one
        if num_samples:
            log["perf/samples_per_sec"] = num_samples / (time.perf_counter() - started)
        log |= {f"lr/group{i}": group["lr"] for i, group in enumerate(self.optimizer.param_groups)}
        log |= self._valid_epoch(epoch)
        self._step_scheduler("epoch", log)
        return log

    def _train_step(self, microbatches: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Make one optimizer step; return the mean loss over its samples and the gradient's norm, on the device.

        Nothing here waits for the device or depends on which step it is: it may be replayed as a CUDA graph.
        """
        num_samples = sum(len(targets) for _, targets in microbatches)
        losses, shares = [], []
        self.optimizer.zero_grad(set_to_none=True)
        for inputs, targets in microbatches:
            with self.autocast:
                outputs = self.model(inputs)
                loss = self.criterion(outputs, targets)
            share = torch.full_like(loss, len(targets) / num_samples)  # for the gradient of one batch of all samples
            self.scaler.scale(loss).backward(share)
            losses.append(loss.detach())
            shares.append(share)
            self.train_metrics.update_metrics(outputs.detach(), targets)
        self.scaler.unscale_(self.optimizer)  # before clipping, which wants the true norm
        grad_norm = clip_gradients(self.parameters, self.max_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.ema.update()
        step_loss = losses[0] if len(losses) == 1 else (torch.stack(losses) * torch.stack(shares)).sum()
        self.train_metrics.update("loss", step_loss, n=num_samples)
        return step_loss, grad_norm

    def _valid_epoch(self, epoch: int) -> dict[str, float]:
        """Return the loss and metrics over the validation split, named val_*; {} where there is none."""
        if self.valid_data_loader is None:
            return {}
        batches = self._until_stopped(islice(self.valid_data_loader, self.options["limit_batches"]))
        values = evaluate(self.ema.best_model, self.criterion, batches, self.valid_metrics, self.device)
        return {f"val_{name}": value for name, value in values.items()}

    def _on_device(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Yield the batches on the device, images in the model's memory format."""
        return prefetch(batches, self.device, self.image_format)

    def _until_stopped(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Yield the batches; raise Stopped where a signal came."""
        for batch in batches:
            self._stop_if_asked()
            yield batch

    def _step_scheduler(self, interval: str, log: dict[str, float] | None = None) -> None:
        """Step the scheduler where `interval` is its own; ReduceLROnPlateau gets the monitored value of `log`."""
        if self.lr_scheduler is None or self.scheduler_interval != interval:
            return
        if isinstance(self.lr_scheduler, ReduceLROnPlateau):
            assert log is not None, "ReduceLROnPlateau steps per epoch"
            self.lr_scheduler.step(log[self.monitor.metric])
        else:
            self.lr_scheduler.step()

    def _stateful(self) -> dict[str, Stateful]:
        parts: dict[str, Stateful] = {"train_metrics": self.train_metrics, "watch": self.watch}
        parts |= {"scaler": self.scaler, "ema": self.ema}
        if self.lr_scheduler is not None:
            parts["lr_scheduler"] = self.lr_scheduler
        return super()._stateful() | parts

    def _environment(self) -> dict[str, Any]:
        return super()._environment() | {"data": self.data_loader.fingerprint()}

    def _watch_step(self, loss: Tensor, grad_norm: Tensor) -> None:
        """Remember the step for `_check_finite`; no waiting for the device here."""
        self.watch.add(self.position, self.optimizer.param_groups[0]["lr"], loss, grad_norm)

    def _check_finite(self) -> None:
        """Raise NonFiniteError where a step since the last check gave NaN or infinity. Waits for the device."""
        bad = self.watch.first_bad()
        if bad is None:
            return
        step, reason = bad
        indices = self.data_loader.step_indices(step.epoch, step.step_in_epoch, **self.step_options)
        raise NonFiniteError(
            f"epoch {step.epoch}, step {step.step_in_epoch} (global step {step.global_step}): {reason}; "
            f"lr {step.lr:.4g}; samples {str(indices[:16])[1:-1]}{', …' if len(indices) > 16 else ''} of the dataset; "
            f"the last checkpoint in {self.checkpoint_dir} is from before"
        )

    def _try_batch(self) -> None:
        """Raise ConfigError where loss or metrics refuse what the model gives for a batch, or give no number."""
        batch = self.data_loader.peek(self.data_loader.batch_sampler.batch_size)
        try_batch(self, next(self._on_device([batch])))

    def _log_samples(self) -> None:
        """Show a grid of input images, where inputs are images: (N, 1 or 3, H, W)."""
        inputs, _ = self.data_loader.peek(32)
        if isinstance(inputs, Tensor) and inputs.ndim == 4 and inputs.shape[1] in (1, 3):
            low, high = inputs.min(), inputs.max()
            self.run_log.writer.add_images("inputs", (inputs - low) / (high - low))

    def _progress_bar(self, epoch: int) -> tqdm[Any]:
        """Return a bar of the epoch's steps; quiet where the output is no terminal."""
        return tqdm(
            total=self.num_steps,
            initial=self.position.step_in_epoch,
            desc=f"epoch {epoch}",
            unit="step",
            leave=False,
            disable=None,
            mininterval=0.5,
        )

    def _log_step(self, loss: Tensor, bar: tqdm[Any]) -> None:
        """Log and show the loss every so many steps; the one place among the steps where the host waits."""
        global_step = self.position.global_step + 1  # steps done, this one included
        if global_step % self.options["log_every_steps"] == 0:
            self._check_finite()
            value = loss.item()
            bar.set_postfix(loss=f"{value:.4f}", refresh=False)
            self.run_log.log_step(self.position.epoch, global_step, {"loss": value})
