"""Follows a training loop that simply iterates its loader, as the published template's do, so that it resumes exactly.

Such a loop says nothing of its steps. The loader starts where the run is, the optimizer's own hook counts steps, and
the place where the next batch is drawn is the one where nothing of the last is under way: there a run is saved.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader

from base.bad_label import raise_if_label
from base.base_data_loader import BaseDataLoader
from base.groups import optimizers_of
from base.sampling import EpochBatchSampler
from distributed import world_size
from utils.annotations import OF_THE_LOOP
from utils.errors import ConfigError, UserError, WorkerDiedError
from utils.failures import worker_death
from utils.inf_loop import inf_loop

if TYPE_CHECKING:
    from base.base_trainer import BaseTrainer


class PlainLoop:
    """What a trainer knows of its loop from outside. A loop that calls `_after_step` itself is hardly touched by it."""

    def __init__(self, trainer: BaseTrainer) -> None:
        """Nothing is attached before `attach`, when the trainer holds its loaders."""
        self._trainer = trainer
        self.can_be_saved = True
        """Whether the run can be saved where it is: an endless or foreign loader can only be between two epochs."""
        self.loader: Any = None
        self._num_uncounted = 0  # optimizer steps since the position last moved
        self._has_own_count = False
        self._is_endless = False
        self._is_attached = False

    @property
    def is_followed(self) -> bool:
        """Whether the loader is one that knows its samples and their order."""
        return isinstance(self.loader, BaseDataLoader)

    def attach(self) -> None:
        """Adopt plain DataLoaders, shorten loaders for debugging, and count the steps of the first optimizer."""
        self._adopt_loaders()
        self._shorten_loaders()
        self._refuse_several_processes()
        optimizers = optimizers_of(self._trainer)
        if optimizers and not self._is_attached:
            optimizers[0].register_step_post_hook(self._count_step)
        self._is_attached = True

    def _adopt_loaders(self) -> None:
        trainer = self._trainer
        adopted: dict[int, Any] = {}
        for name, value in list(vars(trainer).items()):
            holder, key = (value, "data_loader") if isinstance(value, inf_loop) else (trainer, name)
            loader = vars(holder).get(key)
            if isinstance(loader, DataLoader) and not isinstance(loader.batch_sampler, EpochBatchSampler):
                setattr(holder, key, adopted.setdefault(id(loader), BaseDataLoader.adopt(loader)))
            if isinstance(value, inf_loop):
                self._is_endless = True
                value.seed, value.before_batch = trainer.config["seed"], trainer._stop_if_asked
        source = vars(trainer).get("data_loader")
        self.loader = source.data_loader if isinstance(source, inf_loop) else source

    def _shorten_loaders(self) -> None:
        trainer, options = self._trainer, self._trainer.options
        if self.is_followed and options.overfit_batches:
            trainer.valid_data_loader = self.loader.overfit(options.overfit_batches)  # type: ignore[attr-defined]
        num_per_step = options.grad_accum_steps
        for loader, factor in ((self.loader, num_per_step), (vars(trainer).get("valid_data_loader"), 1)):
            if isinstance(loader, DataLoader) and isinstance(loader.batch_sampler, EpochBatchSampler):
                limit = options.limit_batches
                loader.batch_sampler.max_batches = limit * factor if limit else None

    def _refuse_several_processes(self) -> None:
        """Raise ConfigError where there are several processes, and the loop does not say that it shares steps."""
        owner, followed = self._followed_options()
        if world_size() > 1 and "strategy" not in followed:
            raise ConfigError(
                f"{owner.__name__}._train_epoch is a loop of its own, which several processes cannot share: start one "
                f"process, without torchrun; if it goes the way of Trainer._train_step, name 'strategy' in "
                f"{owner.__name__}.LOOP_OPTIONS"
            )

    def _followed_options(self) -> tuple[type, frozenset[str]]:
        """Return the class whose `_train_epoch` is called, or one derived from it that says so, and what it follows."""
        classes = type(self._trainer).__mro__
        place = next(place for place, cls in enumerate(classes) if "_train_epoch" in vars(cls))
        owner = next((cls for cls in classes[:place] if "LOOP_OPTIONS" in vars(cls)), classes[place])
        return owner, vars(owner).get("LOOP_OPTIONS", frozenset())

    def _ignored_options(self) -> dict[str, Any]:
        """Return the options of a loop that are set, and that this one does not say it follows."""
        options, (_, followed) = self._trainer.options, self._followed_options()
        fields = {name: field for name, field in type(options).model_fields.items() if name not in followed}
        values = {name: getattr(options, name) for name, field in fields.items() if OF_THE_LOOP in field.metadata}
        return {name: value for name, value in values.items() if value != fields[name].default}

    def refuse_what_a_step_ignores(self) -> None:
        """Raise ConfigError for options that the loop follows, but not the step that a derived class makes of it."""
        owner, _ = self._followed_options()
        if "_train_epoch" not in vars(owner) and (ignored := self._ignored_options()):
            raise ConfigError(
                f"trainer.{name}: {value!r}, which {owner.__name__} does not follow; see its LOOP_OPTIONS"
                for name, value in ignored.items()
            )

    @contextmanager
    def epoch(self) -> Iterator[None]:
        """Let the loader begin where the run is; afterwards take in the steps since the last batch was drawn."""
        trainer, position = self._trainer, self._trainer.position
        trainer.writer.first_step = position.step_in_epoch
        self._num_uncounted = 0  # a preflight may have tried steps
        if self.is_followed and not self._is_endless:
            self.loader.set_epoch(trainer.config["seed"], position.epoch, position.step_in_epoch)
            self.loader.after_batch = self._between_batches
            for other in vars(trainer).values():  # a loader of unlabelled samples, say, drawn from side by side
                if isinstance(other, BaseDataLoader) and other is not self.loader:
                    first_batch = position.step_in_epoch if position.step_in_epoch < len(other) else 0
                    other.set_epoch(trainer.config["seed"], position.epoch, first_batch)
        else:
            self.can_be_saved = self._has_own_count
        try:
            yield
        except Exception as error:
            self.report_dead_worker(error, can_be_saved=self._is_drawn(error))
            if isinstance(error, RuntimeError | IndexError):
                raise_if_label(error, trainer)
            raise
        self._move_on()
        trainer.writer.first_step = 0

    def report_dead_worker(self, error: Exception, can_be_saved: bool = True) -> None:
        """Raise WorkerDiedError where that is what `error` comes from, or Stopped where a signal was meant for all.

        `can_be_saved` is whether a batch was waited for between two steps, where the state is whole.
        """
        death = None if isinstance(error, UserError) else worker_death(error)
        if death is not None:
            self.can_be_saved = self.can_be_saved and can_be_saved
            self._trainer._stop_if_asked()
            raise WorkerDiedError(f"{death}; {self._trainer._where()}", death.exit_code) from error

    def _is_drawn(self, error: Exception) -> bool:
        """Whether the loader raised `error`; another one may be drawn from within a step or after the last."""
        return any(frame.f_locals.get("self") is self.loader for frame, _ in traceback.walk_tb(error.__traceback__))

    def step_was_counted(self) -> None:
        """Leave the step that was just made to the trainer, which counts its own."""
        self._num_uncounted, self._has_own_count, self.can_be_saved = 0, True, True

    def warn_of_what_is_ignored(self) -> None:
        """Warn of options that only the training loop can follow, where this one does not say it does; and the like."""
        trainer = self._trainer
        for name in ("_save_checkpoint", "_resume_checkpoint"):
            owner = next(cls for cls in type(trainer).__mro__ if name in vars(cls))
            if owner.__module__ != "base.base_trainer":
                trainer.logger.warning(
                    f"{owner.__name__}.{name} is not called: every part that the trainer holds is saved and restored; "
                    f"add further state in _stateful"
                )
        for name, value in vars(trainer).items():
            if isinstance(value, Iterator) and not isinstance(value, inf_loop):
                trainer.logger.warning(
                    f"{type(trainer).__name__}.{name} is an iterator, and where it is cannot be saved: a resumed run "
                    f"differs; for endless batches use utils.inf_loop"
                )
        owner, _ = self._followed_options()
        for name, value in self._ignored_options().items():
            trainer.logger.warning(
                f"trainer.{name}: {value!r} has no effect: {owner.__name__}._train_epoch is a loop of its own; "
                f"if it follows this option, name it in {owner.__name__}.LOOP_OPTIONS"
            )

    def _count_step(self, *_: Any) -> None:
        self._num_uncounted += 1

    def _between_batches(self) -> None:
        self._trainer.position.step_in_epoch += 1
        self._move_on()
        self._trainer._save_if_due()

    def _move_on(self) -> None:
        self._trainer.position.global_step += self._num_uncounted
        self._num_uncounted = 0
