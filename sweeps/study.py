"""The trials of a sweep, in a journal that several processes share, and which process trains which."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.space import Parameter
from utils.errors import ConfigError
from utils.file_lock import LockHeldError, file_lock

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

SAMPLERS, PRUNERS = ("tpe", "random", "grid"), ("none", "median", "hyperband")
MAX_GRID = 1_000_000
FILES = ".sweep"  # in the sweep's directory: locks, and what each run was given and printed


def import_optuna() -> Any:
    """Return optuna, with quiet logging. Raises ConfigError where it is not installed."""
    try:
        import optuna
    except ImportError:
        raise ConfigError("sweeps need Optuna: pip install 'optuna>=5,<6'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def sweep_lock(directory: Path) -> AbstractContextManager[object]:
    """Return the lock of a sweep as a whole, which is waited for: its trials, sweep.json and best.json."""
    return file_lock(directory / FILES / "sweep.lock", on_wait=lambda: None)


class JournalLock:
    """The lock of the journal, which the system releases when its process dies; Optuna's own then blocks for 30 s.

    Also cuts off the half line that a process killed in the middle of a write has left.
    """

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._stack = ExitStack()

    def acquire(self) -> bool:
        """Wait for the lock."""
        lock = self._journal.with_name(FILES) / "journal.lock"
        self._stack.enter_context(file_lock(lock, on_wait=lambda: None))
        with open(self._journal, "rb+") as file:
            content = file.read()
            if not content.endswith(b"\n"):
                file.truncate(content.rfind(b"\n") + 1)
        return True

    def release(self) -> None:
        """Release the lock."""
        self._stack.close()


def open_study(directory: Path, direction: str) -> Study:
    """Return the study in the journal of a sweep's directory; a new one where there is none.

    `direction` is minimize or maximize. Several processes may open it at once.
    """
    optuna = import_optuna()
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    journal = directory / "journal.log"
    (directory / FILES).mkdir(parents=True, exist_ok=True)
    journal.touch()
    storage = JournalStorage(JournalFileBackend(str(journal), lock_obj=JournalLock(journal)))  # type: ignore[arg-type]
    with sweep_lock(directory):
        return optuna.create_study(storage=storage, study_name="sweep", direction=direction, load_if_exists=True)


def make_pruner(name: str, num_reports: int) -> Any:
    """Return the pruner called `name`, one of PRUNERS; a whole trial reports `num_reports` values."""
    pruners = import_optuna().pruners
    if name == "hyperband":
        return pruners.HyperbandPruner(min_resource=1, max_resource=num_reports)
    return pruners.MedianPruner() if name == "median" else pruners.NopPruner()


class Points:
    """The points of a sweep: how many there are, and how each is drawn."""

    def __init__(self, space: Sequence[Parameter], sampler: str, seed: int, num_trials: int | None) -> None:
        """`num_trials` are those of the whole sweep; None, for a grid alone, means every point. Raises ConfigError."""
        if num_trials is None and sampler != "grid":
            raise ConfigError("-n: missing; give the number of trials of the whole sweep")
        self._sampler, self._seed = sampler, seed
        self.grid = self._shuffled_grid(space) if sampler == "grid" else []
        self.num_trials: int = min(num_trials or MAX_GRID, len(self.grid) or MAX_GRID)

    def sampler(self, number: int) -> BaseSampler:
        """Return the sampler of one trial, with a seed of its own: processes that share a sweep draw different points.

        By TPE: Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization".
        """
        seed, samplers = random.Random(f"{self._seed}/{number}").getrandbits(32), import_optuna().samplers
        return samplers.TPESampler(seed=seed) if self._sampler == "tpe" else samplers.RandomSampler(seed=seed)

    def _shuffled_grid(self, space: Sequence[Parameter]) -> list[dict[str, Any]]:
        """Return all points in random order, so that the first few of a large grid cover it."""
        values = [parameter.grid() for parameter in space]
        if (size := math.prod(map(len, values))) > MAX_GRID:
            raise ConfigError(f"--sampler grid: {size:,} points; give fewer values, or sample at random")
        points = [dict(zip((parameter.path for parameter in space), point)) for point in product(*values)]
        random.Random(self._seed).shuffle(points)
        return points


@dataclass(frozen=True)
class Trials:
    """Hands out the trials of a sweep: each to one process, until it has a result.

    A process that has a trial holds a lock. Where it is killed, the system releases the lock while the journal says
    that the trial is running: then the next process that asks gets the same trial.
    """

    study: Study
    directory: Path  # of the sweep
    space: Sequence[Parameter]
    points: Points

    @contextmanager
    def next(self) -> Iterator[Trial | None]:
        """Yield a trial, held by this process inside the context; None where all are done or others have them."""
        with ExitStack() as held:
            with sweep_lock(self.directory):
                trial = self._abandoned(held) or self._new(held)
            yield trial

    def are_done(self) -> bool:
        """Whether every trial has a result."""
        trials = self.trials()
        return len(trials) >= self.points.num_trials and all(trial.state.is_finished() for trial in trials)

    def trials(self) -> list[FrozenTrial]:
        """Return all trials, from the journal as it is now."""
        return self.study.get_trials(deepcopy=False)

    def _abandoned(self, held: ExitStack) -> Trial | None:
        optuna = import_optuna()
        running = optuna.trial.TrialState.RUNNING
        for trial in (trial for trial in self.trials() if trial.state == running):
            try:
                with ExitStack() as stack:
                    stack.enter_context(self._lock(trial.number))
                    if self.trials()[trial.number].state == running:  # not finished just now
                        held.push(stack.pop_all())
                        self.study.sampler = self.points.sampler(trial.number)
                        return self._drawn(optuna.Trial(self.study, trial._trial_id))
            except LockHeldError:
                continue
        return None

    def _new(self, held: ExitStack) -> Trial | None:
        trials = self.trials()
        waiting = [trial.number for trial in trials if trial.state.name == "WAITING"]  # whoever drew it was killed
        if len(trials) >= self.points.num_trials and not waiting:
            return None
        number = waiting[0] if waiting else len(trials)
        held.enter_context(self._lock(number))
        if self.points.grid and not waiting:
            self.study.enqueue_trial(self.points.grid[number])
        self.study.sampler = self.points.sampler(number)
        return self._drawn(self.study.ask())

    def _drawn(self, trial: Trial) -> Trial:
        """Return the trial with all its values drawn: the next ones are drawn with these in view."""
        for parameter in self.space:
            parameter.suggest(trial)
        return trial

    def _lock(self, number: int) -> AbstractContextManager[object]:
        return file_lock(self.directory / FILES / f"{number:03d}.lock", f"pid {os.getpid()}\n")
