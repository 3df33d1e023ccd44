"""What can be checked only with model, data and optimizer built, and before anything is written."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR, ReduceLROnPlateau

from utils import ConfigError, MetricTracker

ROOT = Path(__file__).resolve().parent.parent
GRAPH_MODES = ("reduce-overhead", "max-autotune")  # of torch.compile, with CUDA graphs


def check_run(trainer: Any) -> None:
    """Raise ConfigError where monitor, scheduler or CUDA graph do not fit what this run gives.

    `trainer` is a Trainer of trainer/trainer.py.
    """
    monitor, scheduler = trainer.monitor, trainer.lr_scheduler
    if isinstance(scheduler, ReduceLROnPlateau):
        if trainer.scheduler_interval == "step":
            raise ConfigError("lr_scheduler.interval: ReduceLROnPlateau follows a value of the epoch; give 'epoch'")
        if scheduler.mode != monitor.mode:
            followed = trainer.options.monitor
            raise ConfigError(f"lr_scheduler.args.mode: {scheduler.mode!r}, but the value to follow is {followed!r}")
    if isinstance(scheduler, OneCycleLR | LambdaLR):
        _check_schedule_lasts(trainer, scheduler)
    mode = trainer.options.compile and trainer.options.compile.mode
    if mode in GRAPH_MODES and trainer.options.grad_accum_steps > 1:  # one microbatch would overwrite another's
        raise ConfigError(f"trainer.compile.mode: {mode} does not go with grad_accum_steps; give default")
    if trainer.options.cuda_graph:
        _check_graph(trainer)


@torch.no_grad()
def check_batch(trainer: Any, run: Callable[[], Any]) -> None:
    """Raise ConfigError where loss or metrics refuse what the model gives for a batch, or give no number.

    `run` returns loss, outputs and targets of a batch, with the model in eval mode.
    """
    metrics = MetricTracker("loss", metric_ftns=trainer.metric_ftns, device=trainer.device)
    # Compiling would take longer than this saves; some metrics warn of a single batch.
    with torch.compiler.set_stance("force_eager"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            result = run()
            if result.loss.numel() != 1:
                raise ConfigError(f"loss: gives {list(result.loss.shape)} for a batch; the mean over it is wanted")
            metrics.update("loss", result.loss, n=1)
            metrics.update_metrics(result.outputs, result.targets, n=1)
            names = [*metrics.result(), *trainer.options.LOGGED]
        except ConfigError:
            raise
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # of the model, of torch's losses and torchmetrics, which check shapes and dtypes
            raise ConfigError(_where(error)) from error
    _check_monitor(trainer, names)


def _check_monitor(trainer: Any, names: list[str]) -> None:
    """Raise ConfigError where the monitored value is none of those that an epoch of this run gives."""
    if trainer.valid_data_loader is not None:
        names = names + [f"val_{name}" for name in names]
    if trainer.monitor.is_on and trainer.monitor.metric not in names:
        raise ConfigError(f"trainer.monitor: no {trainer.monitor.metric!r} in this run; allowed: {', '.join(names)}")


def _where(error: Exception) -> str:
    """Return what a batch failed at, and in which line of the project."""
    text = (str(error).splitlines() or [""])[0] or type(error).__name__
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(ROOT)]
    own = [frame for frame in frames if "site-packages" not in frame.filename]
    where = f" ({Path(own[-1].filename).relative_to(ROOT)}:{own[-1].lineno})" if own else ""
    return f"loss or metrics do not take what the model gives, or the model not the batch: {text}{where}"


def _check_graph(trainer: Any) -> None:
    """Raise ConfigError where a CUDA graph would not hold all that a step changes."""
    mode = trainer.options.compile and trainer.options.compile.mode
    changes_momentum = getattr(trainer.lr_scheduler, "cycle_momentum", False)
    reasons = [
        (trainer.device.type != "cuda", f"it needs a GPU; this run is on {trainer.device}"),
        (trainer.scaler.is_enabled(), "precision fp16 has a loss scale that changes; give bf16"),
        (trainer.train_metrics.has_modules, "torchmetrics count on the host; give functions of model/metric.py"),
        (trainer.options.grad_checkpointing, "it cannot hold grad_checkpointing, which looks at the random state"),
        (trainer.options.detect_anomaly, "detect_anomaly waits for the device"),
        (changes_momentum, "the scheduler changes momentum too; give cycle_momentum false"),
        (mode in GRAPH_MODES, f"compile mode {mode} makes graphs of its own"),
    ]
    for is_so, reason in reasons:
        if is_so:
            raise ConfigError(f"trainer.cuda_graph: {reason}")


def _check_schedule_lasts(trainer: Any, scheduler: OneCycleLR | LambdaLR) -> None:
    """Raise ConfigError where the schedule ends, or makes no sense, before the run does."""
    num_steps = trainer.epochs * (trainer.num_steps if trainer.scheduler_interval == "step" else 1)
    if isinstance(scheduler, OneCycleLR):
        if scheduler.total_steps < num_steps:
            raise ConfigError(f"lr_scheduler.args.total_steps: {scheduler.total_steps}, but the run makes {num_steps}")
        return
    for function in scheduler.lr_lambdas:
        try:
            function(num_steps)
        except (ValueError, ArithmeticError) as error:
            raise ConfigError(f"lr_scheduler.args.lr_lambda: {error}") from None
