"""What TensorBoard shows of a run beside its curves: config and code as text, the model's graph, figures, HParams.

Whatever needs Python for long is drawn by the thread of the logs, in turn with the curves: so a checkpoint knows how
long the event files are with all of it, and a resumed run draws nothing twice.
"""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from base.predictions import Predictions, images_of
from distributed import world_size
from logger.dashboard import hparam_summaries, hyperparameters, layout
from logger.run_log import curve
from logger.validation import draw_validation
from speed.levers import is_sharded
from utils.nested import flatten, map_tensors
from utils.rng import rng_state, set_rng_state

if TYPE_CHECKING:
    from base.base_trainer import BaseTrainer

FIGURES = "figures"
MAX_DIFF = 200_000  # characters
Observer = Callable[[Any, Any, Any], None]
"""What `evaluate` hands inputs, outputs and targets of each batch to."""
logger = logging.getLogger("board")


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
        for name, text in _code_and_environment(trainer.checkpoint_dir, trainer.environment).items():
            trainer.writer.add_text(name, text)
        if is_new:
            trainer.writer.add_text("config", _fenced(json.dumps(trainer.config.config, indent=4), "json"))
            trainer._log_samples()

    def show_inputs(self, inputs: Any) -> None:
        """Show the first images among `inputs`, a batch on the device as the model gets it, and the model's graph."""
        image = next(images_of(inputs), None)
        if image is not None:
            low, high = image.min(), image.max()
            self._trainer.writer.add_images("inputs", (image - low) / (high - low).clamp(min=1e-12))
        writer = self._trainer.writer.writer
        if writer is not None:
            self._show_graph(writer, map_tensors(lambda tensor: tensor[:2], inputs))

    def new_observer(self) -> Observer | None:
        """Return what collects the batches of a validation, for figures; None where nothing is drawn."""
        self._predictions = Predictions()
        is_drawn = self._trainer.run_log is not None and self._trainer.options.log_figures is not None
        return self._predictions.add if is_drawn else None

    def log_epoch(self, log: dict[str, float], is_best: bool) -> None:
        """Log the values of an epoch; draw the figures and histograms that are due."""
        trainer, run_log = self._trainer, self._trainer.run_log
        if run_log is None:
            return
        epoch, step, writer = trainer.position.epoch, trainer.position.global_step, trainer.writer.writer
        run_log.log_epoch(epoch, step, log)
        every = trainer.options.log_figures
        if every is not None and (is_best or epoch % every == 0 or epoch == trainer.epochs):
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

    def _show_graph(self, writer: SummaryWriter, inputs: Any) -> None:
        """Trace the model; where that cannot be done, say why and go on."""
        model = self._trainer.model
        if world_size() > 1 or any(map(is_sharded, model.parameters())):
            return  # a pass of the first process alone would wait for the others
        try:
            with _untouched(model, self._trainer.device), torch.no_grad(), torch.compiler.set_stance("force_eager"):
                writer.add_graph(model, (inputs,))
        except Exception as error:  # whatever a model may do while it is traced
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            logger.info(f"TensorBoard has no graph of this model, which cannot be traced: {reason:.200}")


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
                own: Any = tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]
                found[f"{kind}/{name}"] = own.detach().to("cpu", torch.float32, copy=True)
    return found


def _write_histograms(writer: SummaryWriter, step: int, tensors: dict[str, Tensor]) -> None:
    for tag, tensor in tensors.items():
        values = tensor.numpy().ravel()
        values = values[np.isfinite(values)]
        if len(values):
            writer.add_histogram(tag, values, step)


def _code_and_environment(run_dir: Path, environment: dict[str, Any]) -> dict[str, str]:
    """Return as Markdown what this process runs on, and where it is recorded, how its code differs from the commit."""
    texts: dict[str, str] = {}
    try:
        process = json.loads((run_dir / "environment.json").read_text(encoding="utf-8"))["processes"][-1]
        name = (process.get("git") or {}).get("diff")
        if name:
            diff = (run_dir / Path(name).name).read_text(encoding="utf-8", errors="replace")
            texts["git diff"] = _fenced(diff[:MAX_DIFF], "diff")
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        process = environment
    return {"environment": _fenced(json.dumps(process, indent=4, default=str), "json")} | texts


def _fenced(text: str, language: str) -> str:
    return f"```{language}\n{text.replace('```', '` ` `')}\n```"


@contextmanager
def _untouched(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Let a pass of the model in eval mode leave random state, mode and buffers as they are, and print nothing."""
    modes = {module: module.training for module in model.modules()}
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    state = rng_state(device)
    model.eval()
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
        set_rng_state(state, device)
