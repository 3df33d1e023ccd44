"""A trial before a run: batches of training and validation go through model, loss and metrics, and nothing is kept."""

from __future__ import annotations

import math
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from base import first_samples, name_samples, named_groups
from base.groups import optimizers_of
from preflight.shape_watch import ShapeWatch, own_line
from utils import ConfigError, MetricTracker, NonFiniteError, UserError
from utils.failures import is_out_of_memory
from utils.nested import Models
from utils.rng import rng_kept
from utils.weights import buffers_kept

USUAL, SMALL = 7, 5  # samples: no usual dimension is of these sizes, which would be broadcast by chance


def check_batch(trainer: Any, try_batch: Callable[..., Any]) -> None:
    """Raise ConfigError, DataError or NonFiniteError where model, data, loss and metrics do not work together.

    `try_batch(size, loader, is_training)` returns loss, outputs and targets of the first `size` samples of the loader,
    as a training step, with gradients, or a validation computes them. Several models only the trainer's own
    `_train_step` can call: it is made on such samples, and put back.
    """
    try_training = _try_steps if isinstance(trainer.model, Models) else partial(_try_epoch, try_batch=try_batch)
    # Compiling would take longer than this saves; some metrics warn of a single batch.
    with nothing_kept(trainer), torch.compiler.set_stance("force_eager"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log = try_training(trainer, loader=trainer.data_loader, is_training=True)
        log |= dict.fromkeys(trainer.options.LOGGED, 0.0)
        if trainer.valid_data_loader is not None:
            valid_log = log | _try_epoch(trainer, trainer.valid_data_loader, False, try_batch)
            log |= {f"val_{name}": value for name, value in valid_log.items()}
    _check_monitor(trainer, log)


def _check_monitor(trainer: Any, log: dict[str, float]) -> None:
    """Raise ConfigError where the monitored value is none of `log`, which an epoch of this run gives."""
    followed = trainer.monitor.metric
    if not trainer.monitor.is_on:
        return
    if followed not in log:
        raise ConfigError(f"trainer.monitor: no {followed!r} in this run; allowed: {', '.join(log)}")
    loader = trainer.valid_data_loader if followed.startswith("val_") else trainer.data_loader
    if math.isnan(log[followed]) and len(loader.batch_sampler.indices) == 1:
        raise ConfigError(f"trainer.monitor: {followed} is nan for one sample, and there is only one to measure it on")


def _try_steps(trainer: Any, loader: DataLoader[Any], is_training: bool) -> dict[str, float]:
    """Make the trainer's steps of a usual batch and the smallest, and put all back; return its values by name."""
    sizes = _trial_sizes(trainer, loader.batch_sampler, is_training)
    try:
        with state_put_back(trainer), ShapeWatch(trainer.logger):
            trainer.model.train()
            for microbatches in trainer._on_device([first_samples(loader, size)] for size in sizes):
                trainer._train_step(microbatches)
            log: dict[str, float] = trainer.train_metrics.result()
        if not math.isfinite(loss := log.get("loss", 0.0)):
            raise NonFiniteError(f"the loss is {loss} after {len(sizes)} steps")
        return log
    except Exception as error:  # of the models, the loss, and the step itself
        if isinstance(error, UserError) or is_out_of_memory(error):
            raise
        raise ConfigError(_where(error, sizes, is_training)) from error


def _try_epoch(
    trainer: Any, loader: DataLoader[Any], is_training: bool, try_batch: Callable[..., Any]
) -> dict[str, float]:
    """Try what an epoch has, a usual batch and the smallest; return loss and metrics by name."""
    metrics = MetricTracker("loss", metric_ftns=trainer.metric_ftns, device=trainer.device)
    sizes: list[int] = []
    try:
        sampler: Any = loader.batch_sampler
        sizes += _trial_sizes(trainer, sampler, is_training)
        with ShapeWatch(trainer.logger, sampler.indices) as watch:
            for size in sizes:
                watch.is_empty = False
                result = try_batch(size, loader, is_training)
                if result.loss.numel() != 1:
                    raise ConfigError(f"loss: gives {list(result.loss.shape)} for a batch; the mean over it is wanted")
                if is_training:
                    _check_gradient(trainer, result.loss, [] if watch.is_empty else sampler.indices[:size].tolist())
                _check_targets(trainer, result.targets)
                metrics.update("loss", result.loss, n=1)
                metrics.update_metrics(result.outputs, result.targets, n=1)
            log = metrics.result()
        _check_all_labels(watch, loader)
        return log
    except Exception as error:  # of the model, of torch's losses and torchmetrics, which check shapes and dtypes
        if isinstance(error, UserError) or is_out_of_memory(error):
            raise
        raise ConfigError(_where(error, sizes, is_training)) from error


def _trial_sizes(trainer: Any, sampler: Any, is_training: bool) -> list[int]:
    """Return the sizes of batches to try: a usual one, and that of the smallest, where a run comes to it."""
    options = trainer.options
    num_batches = trainer.num_steps * options.grad_accum_steps * (trainer.epochs if options.len_epoch else 1)
    sizes = {*islice(sampler.sizes(), num_batches * sampler.share.num_parts if is_training else None)} - {0} or {1}
    return [min(USUAL, max(sizes)), min(SMALL, *sizes)][: len(sampler)]


def _check_gradient(trainer: Any, loss: Tensor, indices: list[int]) -> None:
    """Raise NonFiniteError where the loss, of the samples `indices`, is; ConfigError where nothing would be trained."""
    if indices and not torch.isfinite(loss):
        raise NonFiniteError(f"the loss is {loss.item()} before any step, for {name_samples(indices)}")
    parameters = [parameter for group in named_groups(trainer.optimizer).values() for parameter in group["params"]]
    if loss.requires_grad:
        loss.backward()
    if all(parameter.grad is None for parameter in parameters):
        raise ConfigError("loss: has no gradient: nothing in it depends on a parameter that the optimizer has")


def _check_targets(trainer: Any, targets: Any) -> None:
    """Raise ConfigError where a torchmetrics metric of classes, not all of which look, gets other numbers."""
    if not isinstance(targets, Tensor) or not targets.is_floating_point() or bool((targets == targets.round()).all()):
        return
    for metric in trainer.metric_ftns:
        if type(metric).__module__.startswith("torchmetrics.classification"):
            raise ConfigError(
                f"metrics: {metric.__name__} wants classes; the targets, {list(targets.shape)}, are numbers such as "
                f"{targets.flatten()[0].item():.4g}"
            )


def _check_all_labels(watch: ShapeWatch, loader: DataLoader[Any]) -> None:
    """Raise DataError where a dataset that is held in memory has a label out of range, whichever batch that is in."""
    held: Tensor | None = loader.dataset.held_targets()  # type: ignore[attr-defined]
    indices: Tensor = loader.batch_sampler.indices  # type: ignore[union-attr]
    if held is None or watch.labels is None or held.ndim != 1:
        return
    labels = held[indices.to(held.device)]
    if torch.equal(labels[: len(watch.labels)], watch.labels.to(held.device)):  # what the loss gets is what is held
        watch.check_labels(labels, indices)


@contextmanager
def state_put_back(trainer: Any) -> Iterator[None]:
    """Put all parts of the trainer that have a state, and the random state, back after steps were made."""
    parts = trainer._stateful()
    before = {name: deepcopy(part.state_dict()) for name, part in parts.items()}
    try:
        with rng_kept(trainer.device):
            yield
    finally:
        for name, part in parts.items():
            part.load_state_dict(before[name])
        for optimizer in optimizers_of(trainer):
            optimizer.zero_grad(set_to_none=True)


@contextmanager
def nothing_kept(trainer: Any) -> Iterator[None]:
    """Put the random state, and buffers and gradients of all the trainer's modules, back afterwards."""
    modules = [value for value in vars(trainer).values() if isinstance(value, nn.Module)]
    with rng_kept(trainer.device), buffers_kept(modules):
        try:
            yield
        finally:
            for parameter in (parameter for module in modules for parameter in module.parameters()):
                parameter.grad = None


def _where(error: Exception, sizes: list[int], is_training: bool) -> str:
    """Return what a batch failed at, in which line of the project, and how it was tried."""
    text = (str(error).splitlines() or [""])[0] or type(error).__name__
    where = own_line(traceback.extract_tb(error.__traceback__))
    tried = f"{'training' if is_training else 'validation'}, with batches of {' and '.join(map(str, sizes))} samples"
    place = f"{where}; {tried}" if where else tried
    return f"loss or metrics do not take what the model gives, or the model not the batch: {text} ({place})"
