"""The trainer that yours subclasses: epochs, logs, checkpoints, stopping. It knows no batch."""

from __future__ import annotations

import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from logger import RunLog
from parse_config import ConfigParser
from utils import CheckpointError, Metric, Monitor, OutOfMemoryError, Position, Stopped
from utils.checkpoint import load_checkpoint
from utils.checkpoint_writer import CheckpointWriter
from utils.device import memory_advice
from utils.exactness import describe_environment, differences
from utils.load_parts import MALFORMED, Stateful, load_part
from utils.rng import rng_state, set_rng_state
from utils.run_lock import locked
from utils.run_status import State, told_in_status
from utils.runs import set_aside_later
from utils.signals import EXIT_CODES, StopSignals

# What these sections build has its state in the checkpoint; a change of theirs would be lost or make no sense.
OWNERS_OF_STATE = ("arch.", "optimizer.", "lr_scheduler", "trainer.monitor", "trainer.ema_decay")


class BaseTrainer(ABC):
    """Trains for `epochs` epochs; a subclass says what an epoch is.

    The run directory is made in `train`, so that whatever is wrong before leaves nothing behind. What is needed while
    training (`environment`, `signals`, `run_log`, `checkpoints`) is there while `train` runs.
    """

    environment: dict[str, Any]
    signals: StopSignals
    run_log: RunLog
    checkpoints: CheckpointWriter

    def __init__(
        self,
        model: nn.Module,
        criterion: Callable[..., Any],
        metric_ftns: Sequence[Metric],
        optimizer: torch.optim.Optimizer,
        config: ConfigParser,
    ) -> None:
        """Take the objects that the config names; touches no file."""
        self.config = config
        self.options: dict[str, Any] = config["trainer"]
        self.logger = config.get_logger("trainer", self.options["verbosity"])
        self.model = model
        self.criterion = criterion
        self.metric_ftns = metric_ftns
        self.optimizer = optimizer
        self.device = torch.device("cpu")
        self.epochs: int = self.options["epochs"]
        self.position = Position()
        self.monitor = Monitor(self.options["monitor"], self.options["early_stop"])
        self.last_log: dict[str, float] = {}  # the values of the last finished epoch
        self.last_save_s = time.monotonic()
        self.saved_at: Position | None = None

    @abstractmethod
    def _train_epoch(self, epoch: int) -> dict[str, float]:
        """Train from `self.position` to the end of the epoch and validate; return the epoch's values by name.

        Calls `_after_step` after each optimizer step, and `_stop_if_asked` wherever else it may be long.
        """

    def train(self) -> None:
        """Train to the last epoch, or until early stopping; resume first where the config says so.

        Raises ConfigError, CheckpointError, RunDirError, NonFiniteError, OutOfMemoryError; and Stopped after a signal,
        when the run has been saved where it is. How training ended is in status.json too.
        """
        with self._running():
            while self.position.epoch <= self.epochs and not self.monitor.should_stop:
                self._stop_if_asked()
                log = self._train_epoch(self.position.epoch)
                self._finish_epoch(log)

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Hold the run directory with its logs and checkpoints: new or resumed, and saved when a signal ends it."""
        self._try_batch()
        self.environment = self._environment()
        self.config.make_run_dir()
        run_dir = self.checkpoint_dir
        with locked(run_dir):
            log_sizes = self._resume_checkpoint(self.config.resume)["logs"] if self.config.resume else None
            self.config.start_logging()
            with (
                StopSignals() as self.signals,
                told_in_status(run_dir, self.position, self._final_state),
                RunLog(run_dir, self.options["tensorboard"], log_sizes) as self.run_log,
                CheckpointWriter(run_dir, self.options["keep_checkpoints"], self.run_log.sync) as self.checkpoints,
            ):
                self._log_start()
                if self.config.resume is None:
                    self._save_checkpoint(None)  # a disk that is full or cannot be written to is told before training
                    self.checkpoints.wait()
                try:
                    yield
                except Stopped:
                    if self.saved_at != self.position:
                        self._save_checkpoint(None)
                    self.checkpoints.wait()  # its failure is told rather than the stop
                    raise
                except torch.OutOfMemoryError as error:
                    loader_args = self.config["data_loader"].get("args", {})
                    raise OutOfMemoryError(memory_advice(error, self.device, loader_args)) from error
                self._log_end()

    @property
    def checkpoint_dir(self) -> Path:
        """The run directory."""
        return self.config.save_dir

    def _finish_epoch(self, log: dict[str, float]) -> None:
        """Log the epoch that has been trained and validated, move on, and save it where that is due."""
        epoch = self.position.epoch
        for name in (name for name, value in log.items() if not math.isfinite(value)):
            self.logger.warning(f"epoch {epoch}: {name} is {log[name]}; that is never the best")
        is_best = self.monitor.update(epoch, log)
        self.run_log.log_epoch(epoch, self.position.global_step, log)
        values = "  ".join(f"{name} {value:.4g}" for name, value in log.items())
        self.logger.info(f"epoch {epoch}/{self.epochs}  {values}{'  (best)' if is_best else ''}")
        self.last_log = log
        self.position.after_epoch()
        is_due = epoch % self.options["save_period"] == 0 or epoch == self.epochs or self.monitor.should_stop
        if is_due or is_best:
            self._save_checkpoint(epoch if is_due else None, save_best=is_best)

    def _after_step(self) -> None:
        """Move on by one optimizer step; save where that is due; raise Stopped where a signal came."""
        self.position.after_step()
        self.checkpoints.raise_error()
        every_steps, every_minutes = self.options["save_every_steps"], self.options["save_every_minutes"]
        steps_due = every_steps is not None and self.position.global_step % every_steps == 0
        minutes_due = every_minutes is not None and time.monotonic() - self.last_save_s >= 60 * every_minutes
        if steps_due or minutes_due:
            self._save_checkpoint(None)
        self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        """Raise Stopped where SIGTERM, SIGINT or SIGUSR1 came."""
        received = self.signals.received
        if received is not None:
            where = f"epoch {self.position.epoch}, step {self.position.step_in_epoch}"
            message = f"stopped by {received.name} at {where}; go on with: python train.py -r {self.checkpoint_dir}"
            raise Stopped(message, received.name, EXIT_CODES[received])

    def _final_state(self) -> State:
        """Return what the run is: for status.json, when training has ended without an error."""
        return "early_stopped" if self.monitor.should_stop else "completed"

    def _stateful(self) -> dict[str, Stateful]:
        """Return the parts of a checkpoint that have a state of their own; a subclass adds its parts."""
        return {
            "model": self.model,
            "optimizer": self.optimizer,
            "monitor": self.monitor,
            "position": self.position,
        }

    def _environment(self) -> dict[str, Any]:
        """Return what must be equal for an exact resume, beside the config; a subclass adds its data."""
        return describe_environment(self.device)

    def _try_batch(self) -> None:
        """Raise ConfigError where what the config names does not work together; before anything is written."""

    def _check_finite(self) -> None:
        """Raise NonFiniteError where training has gone to NaN; called before each save."""

    def _save_checkpoint(self, epoch: int | None, save_best: bool = False) -> None:
        """Save where the run is, as `latest.pth`; where `epoch` is given as its checkpoint too; and as the best.

        Returns when the state is cloned. Raises NonFiniteError, and RunDirError where this or the last write fails.
        """
        self._check_finite()
        state: dict[str, Any] = {key: part.state_dict() for key, part in self._stateful().items()}
        state["epoch"] = self.position.epoch - (self.position.step_in_epoch == 0)  # the last one trained in
        state["log"] = self.last_log
        state["rng"] = [rng_state(self.device)]
        state["logs"] = self.run_log.sizes()
        state["config"] = self.config.config
        state["environment"] = self.environment
        self.checkpoints.save(state, epoch, save_best)
        self.last_save_s = time.monotonic()
        self.saved_at = replace(self.position)

    def _resume_checkpoint(self, resume_path: Path) -> dict[str, Any]:
        """Restore every part and the random state; return the checkpoint.

        Raises CheckpointError where the file is damaged, a part does not fit, or the run would not go on exactly as if
        it had never stopped (only warns with --allow-inexact).
        """
        checkpoint = load_checkpoint(resume_path)
        try:
            self._check_exactness(checkpoint)
            for key, part in self._stateful().items():
                load_part(part, checkpoint.get(key), f"{resume_path}: {key}")
            set_rng_state(checkpoint["rng"][0], self.device)
            self.last_log = dict(checkpoint["log"])
            checkpoint["logs"] = {str(name): int(size) for name, size in checkpoint["logs"].items()}
        except MALFORMED as error:
            raise CheckpointError(f"{resume_path}: malformed: {type(error).__name__}: {error}") from None
        # Steps were made, in another process: else torch warns where a resumed run begins with the scheduler's step.
        self.optimizer._opt_called = self.position.global_step > 0  # type: ignore[attr-defined]
        set_aside_later(resume_path.parent, self.position, self.monitor.best_epoch)
        return checkpoint

    def _check_exactness(self, checkpoint: dict[str, Any]) -> None:
        """Raise CheckpointError, or with --allow-inexact warn, where what decides about the bits has changed."""
        changes = differences(checkpoint["environment"], self.environment)
        changes += differences(checkpoint["config"], self.config.config)
        not_allowed = [change for change in changes if change.split(":")[0].startswith(OWNERS_OF_STATE)]
        if not_allowed or (changes and not self.config.allow_inexact):
            hint = "-c with -r starts a new run from these weights"
            hint += "" if not_allowed else "; --allow-inexact goes on all the same"
            raise CheckpointError("\n  ".join([f"{self.config.resume}: cannot go on exactly:", *changes, hint]))
        for change in changes:
            self.logger.warning(f"not an exact resume: {change}")
        for change in differences(checkpoint["config"], self.config.config, harmless=True):
            self.logger.info(f"changed: {change}")

    def _log_start(self) -> None:
        if self.config.resume:
            where = f"epoch {self.position.epoch}, step {self.position.step_in_epoch}"
            self.logger.info(f"resumed {self.config.resume} at {where}")
            return
        self.logger.info(f"{self.model}\nrun directory: {self.checkpoint_dir}")
        self.run_log.writer.set_step(0)
        self.run_log.writer.add_text("config", f"```json\n{json.dumps(self.config.config, indent=4)}\n```")
        self._log_samples()

    def _log_samples(self) -> None:
        """Show what the model is trained on, in TensorBoard; nothing by default."""

    def _log_end(self) -> None:
        if self.monitor.should_stop:
            self.logger.info(f"stopped early: no better {self.monitor.metric} for {self.monitor.early_stop} epochs")
        if self.monitor.is_on:
            best = f"{self.monitor.metric} {self.monitor.best:.4g} in epoch {self.monitor.best_epoch}"
            self.logger.info(f"best: {best}; checkpoints are in {self.checkpoint_dir}")
