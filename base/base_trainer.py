"""The trainer that yours subclasses: epochs, logs, checkpoints, stopping. It knows no batch."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from base.announce import announce_end, announce_epoch, announce_start
from base.base_model import take_weights
from base.board import Board
from base.freezing import Freezing
from base.groups import optimizers_of
from base.kept_workers import workers_ended
from base.monitor import Monitor
from base.plain_loop import PlainLoop
from base.recording import recorded, saved_when_stopped, wait_for_save
from base.resume import check_exactness, parts_of, restore, saved_epoch
from checkpoint.environment import describe_environment
from checkpoint.file import load_checkpoint
from checkpoint.run_dir import check_file_handles, set_aside_later
from checkpoint.run_status import State, check_same_run
from checkpoint.writer import CheckpointWriter
from distributed import is_main, world_size
from distributed.collective import broadcast, gather
from distributed.failures import failures_shared
from distributed.strategy import Alone
from logger import Display, RunLog, TensorboardWriter
from parse_config import ConfigParser, TrainerOptions
from utils import Metric, Position, Stopped
from utils.rng import rng_state
from utils.signals import EXIT_CODES, StopSignals
from utils.weights import Stateful


class BaseTrainer(ABC):
    """Trains for `epochs` epochs; a subclass says what an epoch is.

    The run directory is made in `train`, so that whatever is wrong before leaves nothing behind. What is needed while
    training (`environment`, `signals`, `run_log`, `checkpoints`) is there while `train` runs, and not in a rehearsal.
    """

    LOOP_OPTIONS: ClassVar[frozenset[str]] = frozenset()
    """Options of the `trainer` section that the `_train_epoch` of this very class follows."""

    device = torch.device("cpu")
    options: TrainerOptions
    environment: dict[str, Any]
    signals: StopSignals | None = None
    run_log: RunLog | None = None
    checkpoints: CheckpointWriter | None = None

    def __init__(
        self,
        model: nn.Module,
        criterion: Callable[..., Any],
        metric_ftns: Sequence[Metric],
        optimizer: Any,
        config: ConfigParser,
    ) -> None:
        """Take the objects that the config names; touches no file. `optimizer` is one, or a dict of several."""
        self.config = config
        self.options = config.section("trainer")
        self.logger = config.get_logger("trainer", self.options.verbosity)
        self.writer = TensorboardWriter(logger=self.logger, enabled=self.options.has_tensorboard and is_main())
        self.model = model
        self.criterion = criterion
        self.metric_ftns = metric_ftns
        self.optimizer: Any = optimizer
        self.freezing = Freezing(model, optimizer, config.section("fine_tune"))
        self.epochs: int = self.options.epochs
        self.position = Position()
        self.strategy = Alone(self.options, self.device, config["seed"])
        self.display = Display()
        self.monitor = Monitor(self.options.monitor, self.options.early_stop, self.options.keep_best)
        self.loop = PlainLoop(self)
        self.board = Board(self)
        self.last_log: dict[str, float] = {}  # the values of the last finished epoch
        self.last_save_s = time.monotonic()
        self.saved_at: tuple[int, ...] | None = None  # as (epoch, step_in_epoch, global_step)

    @abstractmethod
    def _train_epoch(self, epoch: int) -> dict[str, float]:
        """Train from `self.position` to the end of the epoch and validate; return the epoch's values by name.

        Either starts at `self.position.step_in_epoch`, and calls `_after_step` after each optimizer step; or simply
        iterates `self.data_loader`, as the published template does: then the loader starts where the run is.
        """

    def _before_epoch(self, epoch: int) -> None:
        """Do what an epoch needs before it begins or resumes, such as freezing layers; nothing by default."""

    def train(self) -> None:
        """Train to the last epoch, or until early stopping; resume first where the config says so.

        Raises ConfigError, CheckpointError, RunDirError, NonFiniteError, OutOfMemoryError; and Stopped after a signal,
        or WorkerDiedError, when the run has been saved where it is. How training ended is in status.json too.
        """
        with self._running():
            while self.position.epoch <= self.epochs and not self.monitor.should_stop:
                self._stop_if_asked()
                with self.loop.epoch():
                    self._before_epoch(self.position.epoch)
                    log = self._train_epoch(self.position.epoch)
                self._finish_epoch(log)

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Hold the run directory with its logs and checkpoints: new or resumed, and saved when a signal ends it."""
        take_weights(self.model, self.config)
        self.loop.attach()
        self._preflight()
        self.environment = self._environment()
        check_file_handles(getattr(self.loop.loader, "num_workers", 0))
        with StopSignals() as self.signals, self.config.held_run_dir() as check_held:
            log_sizes = self._resume(self.config.resume)["logs"] if self.config.resume else None
            with recorded(self, log_sizes, check_held), failures_shared(), workers_ended(self.loop.loader):
                announce_start(self)
                if self.config.resume is None:
                    self._save(None)  # fails on a full or read-only disk before training does
                    wait_for_save(self)
                with saved_when_stopped(self), self.display.run(self.epochs, self.position.epoch - 1, is_main()):
                    yield
                announce_end(self)

    @property
    def checkpoint_dir(self) -> Path:
        """The run directory."""
        return self.config.save_dir

    @property
    def start_epoch(self) -> int:
        """The epoch to train next, from 1."""
        return self.position.epoch

    def _finish_epoch(self, log: dict[str, float]) -> None:
        """Log the epoch that has been trained and validated, move on, and save it where that is due."""
        epoch = self.position.epoch
        log = broadcast({name: float(value) for name, value in log.items()})  # all decide by the first one's values
        self.monitor.check(log)
        is_best = self.monitor.update(epoch, log)
        self.board.log_epoch(log, is_best)
        announce_epoch(self, log, is_best)
        self.last_log = log
        self.position.after_epoch()
        self._unfreeze()
        is_due = epoch % self.options.save_period == 0 or epoch == self.epochs or self.monitor.should_stop
        is_due = is_due or self.monitor.is_kept(epoch)
        if is_due or is_best or not self.loop.can_be_saved:
            self._save(epoch if is_due else None, save_best=is_best)

    def _unfreeze(self) -> None:
        """Train what is no longer frozen in this epoch; before a save, so that its state has what its epoch trains."""
        self.strategy.train_too(self.freezing.begin(self.position.epoch))

    def _after_step(self) -> None:
        """Move on by one optimizer step; save where that is due; raise Stopped where a signal came."""
        self.loop.step_was_counted()
        self.position.after_step()
        self._save_if_due()

    def _save_if_due(self) -> None:
        """Save where `save_every_steps` or `save_every_minutes` say so; raise Stopped where a signal came."""
        if self.signals is None:  # a rehearsal
            return
        if self.checkpoints is not None:
            self.checkpoints.raise_error()
        every_steps, every_minutes = self.options.save_every_steps, self.options.save_every_minutes
        last = self.saved_at[-1] if self.saved_at else 0
        steps_due = every_steps is not None and self.position.global_step // every_steps > last // every_steps
        minutes_due = every_minutes is not None and time.monotonic() - self.last_save_s >= 60 * every_minutes
        if self.strategy.agreed_save(minutes_due) or steps_due:
            self._save(None)
        self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        """Raise Stopped where one of EXIT_CODES' signals came."""
        received = self.strategy.agreed_signal(self.signals.received) if self.signals else None
        if received is not None:
            raise Stopped(f"stopped by {received.name} at {self._where()}", received.name, EXIT_CODES[received])

    def _where(self) -> str:
        """Return where the run is, and how it is resumed from there."""
        where = f"epoch {self.position.epoch}, step {self.position.step_in_epoch}"
        return f"{where}; resume with: python train.py -r {self.checkpoint_dir}"

    def _final_state(self) -> State:
        """Return what the run is: for status.json, when training has ended without an error."""
        return "early_stopped" if self.monitor.should_stop else "completed"

    def _stateful(self) -> dict[str, Stateful]:
        """Return the parts of a checkpoint: whatever this trainer holds that has a state, dicts and lists of such too.

        What has no state of its own, such as a plain number that the trainer counts, a subclass adds here.
        """
        return parts_of(self)

    def _environment(self) -> dict[str, Any]:
        """Return what must be equal for an exact resume, beside the config."""
        data = {"data": self.loop.loader.fingerprint()} if self.loop.is_followed else {}
        return describe_environment(self.device, world_size() if self.strategy.fixes_world_size else None) | data

    def _preflight(self) -> None:
        """Raise ConfigError where what the config names does not work together; before anything is written."""

    def _check_finite(self) -> None:
        """Raise NonFiniteError where training has gone to NaN; called before each save."""

    def _save(self, epoch: int | None, save_best: bool = False) -> None:
        """Save where the run is, as `latest.pth`; where `epoch` is given as its checkpoint too; and as the best.

        Returns when the state is cloned. Raises NonFiniteError, and RunDirError where this or the last write fails.
        """
        self._check_finite()
        state: dict[str, Any] = {key: self.strategy.full(part.state_dict()) for key, part in self._stateful().items()}
        state["epoch"] = self.position.epoch - (self.position.step_in_epoch == 0)  # the last one trained in
        state["log"] = self.last_log
        random_state = rng_state(self.device)
        state["rng"] = gather(random_state) if self.strategy.fixes_world_size else [random_state]
        state["config"] = self.config.config
        state["facts"] = self.config.facts
        state["environment"] = self.environment
        state["logs"] = self.run_log.sizes() if self.run_log is not None else {}
        if self.checkpoints is not None:
            self.checkpoints.save(state, epoch, save_best)
        self.last_save_s = time.monotonic()
        self.saved_at = astuple(self.position)

    def _resume(self, resume_path: Path) -> dict[str, Any]:
        """Restore every part and the random state; return the checkpoint.

        Raises CheckpointError where the file is damaged, a part does not fit, or the run would not resume exactly as if
        it had never stopped (only warns with --allow-inexact).
        """
        checkpoint = load_checkpoint(resume_path)
        check_exactness(checkpoint, self.environment, self.config, self.logger)
        self.strategy.train_too(self.freezing.begin(saved_epoch(checkpoint)))  # first: the optimizer's groups follow it
        self.last_log = restore(checkpoint, self._stateful(), self.strategy, self.device, resume_path)
        check_same_run(resume_path.parent, checkpoint["logs"], resume_path)
        # Steps were made, in another process: else torch warns where a resumed run begins with the scheduler's step.
        for optimizer in optimizers_of(self):
            optimizer._opt_called = self.position.global_step > 0  # type: ignore[attr-defined]
        self.saved_at = astuple(self.position)
        if is_main():
            set_aside_later(resume_path, self.position, self.monitor.best_epoch)
        return checkpoint

    def _save_checkpoint(self, epoch: int, save_best: bool = False) -> None:
        """Save now as the checkpoint of `epoch`; for a loop that wants more saves than the config asks for."""
        self._save(epoch, save_best)

    def _resume_checkpoint(self, resume_path: Path) -> None:
        """Restore every part of the run from a checkpoint of it. Raises CheckpointError."""
        self._resume(resume_path)

    def _log_samples(self) -> None:
        """Show what the model is trained on, in TensorBoard; nothing by default."""
