"""The trainer that yours subclasses: epochs, logs, checkpoints, early stopping. It knows no batch."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from logger import RunLog
from parse_config import ConfigParser
from utils import CheckpointError, Metric, Monitor, Position, rng_state, set_rng_state
from utils.checkpoint import BEST, load_checkpoint, load_weights, save_checkpoint


class Stateful(Protocol):
    """What a checkpoint can hold a part of."""

    def state_dict(self) -> Any:
        """Return plain data."""

    def load_state_dict(self, state: Any) -> Any:
        """Restore what `state_dict` returned."""


class BaseTrainer(ABC):
    """Trains for `epochs` epochs; a subclass says what an epoch is.

    The run directory is made in `train`, so that whatever is wrong before leaves nothing behind.
    """

    run_log: RunLog

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
        self.checkpoint_dir: Path = config.save_dir
        self.position = Position()
        self.last_log: dict[str, float] = {}  # the values of the last finished epoch
        self.monitor = Monitor(self.options["monitor"], self.options["early_stop"])

    @abstractmethod
    def _train_epoch(self, epoch: int) -> dict[str, float]:
        """Train from `self.position` to the end of the epoch and validate; return the epoch's values by name."""

    def train(self) -> None:
        """Train to the last epoch, or until early stopping; resume first where the config says so."""
        checkpoint = self._resume_checkpoint(self.config.resume) if self.config.resume else None
        self.config.start_run()
        self.checkpoint_dir = self.config.save_dir
        self.run_log = RunLog(self.checkpoint_dir, self.options["tensorboard"], checkpoint and checkpoint["logs"])
        try:
            self._log_start()
            while self.position.epoch <= self.epochs and not self.monitor.should_stop:
                self._run_epoch(self.position.epoch)
            self._log_end()
        finally:
            self.run_log.close()

    def _run_epoch(self, epoch: int) -> None:
        """Train and validate one epoch, log it, save it."""
        log = self._train_epoch(epoch)
        is_best = self.monitor.update(epoch, log)
        self.run_log.log_epoch(epoch, self.position.global_step, log)
        values = "  ".join(f"{name} {value:.4g}" for name, value in log.items())
        self.logger.info(f"epoch {epoch}/{self.epochs}  {values}{'  (best)' if is_best else ''}")
        self.last_log = log
        self.position.after_epoch()
        is_last = epoch == self.epochs or self.monitor.should_stop
        if epoch % self.options["save_period"] == 0 or is_best or is_last:
            self._save_checkpoint(epoch, save_best=is_best)

    def _stateful(self) -> dict[str, Stateful]:
        """Return the parts of a checkpoint that have a state of their own; a subclass adds its parts."""
        return {
            "model": self.model,
            "optimizer": self.optimizer,
            "monitor": self.monitor,
            "position": self.position,
        }

    def _save_checkpoint(self, epoch: int, save_best: bool = False) -> None:
        """Write `checkpoint-epoch{epoch}.pth`, and `model_best.pth` too where it is the best so far."""
        state: dict[str, Any] = {key: part.state_dict() for key, part in self._stateful().items()}
        state["epoch"] = epoch
        state["log"] = self.last_log
        state["rng"] = [rng_state(self.device)]
        state["logs"] = self.run_log.sizes()
        state["config"] = self.config.config
        state["torch_version"] = str(torch.__version__)
        save_checkpoint(state, self.checkpoint_dir / f"checkpoint-epoch{epoch}.pth")
        if save_best:
            save_checkpoint(state, self.checkpoint_dir / BEST)

    def _resume_checkpoint(self, resume_path: Path) -> dict[str, Any]:
        """Restore every part and the random state; return the checkpoint.

        Raises CheckpointError where the file is damaged or a part does not fit.
        """
        checkpoint = load_checkpoint(resume_path)
        for key, part in self._stateful().items():
            if key not in checkpoint:
                raise CheckpointError(f"{resume_path}: has no {key!r}")
            if isinstance(part, nn.Module):
                load_weights(part, checkpoint[key], str(resume_path))
            else:
                part.load_state_dict(checkpoint[key])
        set_rng_state(checkpoint["rng"][0], self.device)
        return checkpoint

    def _log_start(self) -> None:
        if self.config.resume:
            self.logger.info(f"resumed {self.config.resume} at epoch {self.position.epoch}")
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
