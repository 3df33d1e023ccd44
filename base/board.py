"""What TensorBoard shows of a run beside its curves: config and code as text, the model's graph, figures, HParams.

Whatever needs Python for long is drawn by the thread of the logs, in turn with the curves: so a checkpoint knows how
long the event files are with all of it, and a resumed run draws nothing twice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from base.base_model import BaseModel
from base.model_graph import add_graph, untouched
from base.predictions import Predictions, images_of
from distributed import world_size
from logger.dashboard import code_and_environment, fenced, hparam_summaries, hyperparameters, layout
from logger.run_log import curve
from logger.validation import draw_validation
from speed.levers import local_part
from utils.nested import Models, by_name, flatten, map_tensors

if TYPE_CHECKING:
    from base.base_trainer import BaseTrainer

FIGURES = "figures"
Observer = Callable[[Any, Any, Any], None]
"""What `evaluate` hands each batch to, with its outputs and targets."""


class Board:
    """Draws what a trainer's run shows; nothing in a rehearsal, and in other processes than the first."""

    def __init__(self, trainer: BaseTrainer) -> None:
        self._trainer = trainer
        self._predictions = Predictions()

    def start(self) -> None:
        """Show the code and the environment of this process; of a new run, its config and first samples too."""
        trainer = self._trainer
        is_new = trainer.config.resume is None
        trainer.writer.set_step(trainer.position.global_step, mode="")
        for name, text in code_and_environment(trainer.checkpoint_dir, trainer.environment).items():
            trainer.writer.add_text(name, text)
        if is_new:
            trainer.writer.add_text("config", fenced(json.dumps(trainer.config.config, indent=4), "json"))
            trainer._log_samples()

    def show_samples(self, batch: Any, run_batch: Callable[[Any], Any]) -> None:
        """Show the first images in `batch`, on the device, and the graph of the model, which `run_batch` calls."""
        image = next(images_of(batch), None)
        if image is not None:
            self._trainer.writer.add_images("inputs", _in_unit_range(image))
        writer = self._trainer.writer.writer
        if writer is not None and not isinstance(self._trainer.model, Models):
            run = partial(run_batch, map_tensors(_first, batch))
            add_graph(writer, self._trainer.model, run, self._trainer.device)

    def show_images_of(self, model: nn.Module) -> None:
        """Show the images that `model`, or each of several, makes by itself, in epochs whose figures are drawn.

        Of several processes none does: a pass of the first one alone would wait for the others.
        """
        trainer = self._trainer
        if trainer.run_log is None or world_size() > 1 or not self._is_due():
            return
        trainer.writer.set_step(trainer.position.global_step, mode="")
        for name, one in by_name(model).items():
            if isinstance(one, BaseModel) and type(one).sample_images is not BaseModel.sample_images:
                with untouched(one, trainer.device), torch.no_grad():
                    images = one.sample_images()
                if images is not None:
                    trainer.writer.add_images(f"samples/{name}".rstrip("/"), _in_unit_range(images))

    def new_observer(self) -> Observer | None:
        """Return what collects the batches of a validation, for figures; None where nothing is drawn."""
        self._predictions = Predictions()
        return self._predictions.add if self._trainer.run_log is not None and self._is_due() else None

    def _is_due(self) -> bool:
        """Whether figures are drawn in this epoch: not by how many there are, as a run may be resumed to more."""
        epoch, every = self._trainer.position.epoch, self._trainer.options.log_figures
        return every is not None and (epoch == 1 or epoch % every == 0)

    def log_epoch(self, log: dict[str, float], is_best: bool) -> None:
        """Log the values of an epoch; draw the figures and histograms that are due."""
        trainer, run_log = self._trainer, self._trainer.run_log
        if run_log is None:
            return
        epoch, step, writer = trainer.position.epoch, trainer.position.global_step, trainer.writer.writer
        run_log.log_epoch(epoch, step, log)
        if self._is_due():
            self._draw_validation(step, is_best or not trainer.monitor.is_on)
        if writer is None:
            return
        if epoch == 1:
            run_log.draw(_write_dashboard, writer, trainer, list(log))
        if is_best:
            run_log.draw(_write_best, writer, step, log)
        every = trainer.options.log_histograms
        if every is not None and epoch % every == 0:
            run_log.draw(_write_histograms, writer, step, _histograms(trainer.model))

    def end(self) -> None:
        """Let HParams show the run as complete."""
        run_log, writer = self._trainer.run_log, self._trainer.writer.writer
        if run_log is not None and writer is not None:
            run_log.draw(_add, writer, hparam_summaries({}, [])[2])

    def _draw_validation(self, step: int, is_kept: bool) -> None:
        trainer, sample = self._trainer, self._predictions.sample()
        self._predictions = Predictions()
        if sample is not None and trainer.run_log is not None:
            directory = trainer.checkpoint_dir / FIGURES if is_kept else None
            trainer.run_log.draw(draw_validation, trainer.writer.writer, step, sample, directory)


def _in_unit_range(images: Tensor) -> Tensor:
    low, high = images.min(), images.max()
    return (images - low) / (high - low).clamp(min=1e-12)


def _first(tensor: Tensor) -> Tensor:
    return tensor[:2] if tensor.ndim else tensor


def _judged(names: Iterable[str]) -> list[str]:
    """Return which values of an epoch a run is judged by: those of validation, or else of training."""
    valid = [name for name in names if name.startswith("val_")]
    return valid or [name for name in names if not name.startswith(("lr/", "perf/"))]


def _write_dashboard(writer: SummaryWriter, trainer: BaseTrainer, names: list[str]) -> None:
    writer.add_custom_scalars(layout(names, "log_every_steps" in trainer.LOOP_OPTIONS))
    config = trainer.config.config | {"trainer": trainer.options.model_dump(exclude_defaults=True)}
    tags = [f"best/{name}" if trainer.monitor.is_on else curve(name) for name in _judged(names)]
    experiment, start, _ = hparam_summaries(hyperparameters(flatten(config)), tags)
    _add(writer, experiment)
    _add(writer, start)


def _write_best(writer: SummaryWriter, step: int, log: dict[str, float]) -> None:
    for name in _judged(log):
        writer.add_scalar(f"best/{name}", log[name], step)


def _add(writer: SummaryWriter, summary: Any) -> None:
    writer._get_file_writer().add_summary(summary)


def _histograms(model: nn.Module) -> dict[str, Tensor]:
    """Return copies on the host of weights and the last step's gradients; of sharded ones, this process's part."""
    found: dict[str, Tensor] = {}
    for name, weight in model.named_parameters():
        for kind, tensor in (("weights", weight), ("gradients", weight.grad)):
            if tensor is not None:
                found[f"{kind}/{name}"] = local_part(tensor).detach().to("cpu", torch.float32, copy=True)
    return found


def _write_histograms(writer: SummaryWriter, step: int, tensors: dict[str, Tensor]) -> None:
    for tag, tensor in tensors.items():
        values = tensor.numpy().ravel()
        values = values[np.isfinite(values)]
        if len(values):
            writer.add_histogram(tag, values, step)
