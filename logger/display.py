"""What is seen while a run trains: a bar for the run, and one for the epoch or the validation."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, TypeVar

from tqdm import tqdm

from logger.console import is_terminal
from logger.epoch_table import named
from utils.signals import in_notebook

T = TypeVar("T")
RUN_FORMAT = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
STEP_FORMAT = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {elapsed}<{remaining}{postfix}"
REDRAW_S = 0.2


class _Bar(tqdm):
    """A bar in a terminal. Costs nothing per step but a look at the clock, and never waits for the device."""

    run: _Bar | None = None
    """The bar of the run, which is redrawn with this one."""
    first = 0.0
    """Epochs of the run that were done before this one."""

    def display(self, msg: str | None = None, pos: int | None = None) -> Any:
        """Draw this bar, and that of the run above it."""
        if self.run is not None:
            self.move_run()
            self.run.refresh(nolock=True)
        return super().display(msg, pos)

    def move_run(self) -> None:
        """Advance the bar of the run to where this one is."""
        if self.run is not None:
            self.run.n = self.first + self.n / (self.total or 1)


class _NotebookBar(_Bar):
    """All bars as one text, which every notebook shows: tqdm's own widgets need ipywidgets, and warn without."""

    shown: ClassVar[list[_NotebookBar]] = []
    output: ClassVar[Any] = None

    def display(self, msg: str | None = None, pos: int | None = None) -> Any:
        """Update the text; an empty `msg` takes this bar away."""
        from IPython.display import display

        if self not in self.shown:
            if not self.shown:
                type(self).output = display({"text/plain": ""}, raw=True, display_id=True)
            self.shown.append(self)
        self.move_run()
        text = "\n".join(str(bar) for bar in self.shown if bar is not self or msg != "")
        if text:  # the last state of the last bar stays
            self.output.update({"text/plain": text}, raw=True)
        if msg == "":
            self.shown.remove(self)
        return True


def _new_bar(is_shown: bool, desc: str, total: float, **options: Any) -> _Bar:
    how = {"desc": desc, "total": total, "leave": False, "mininterval": REDRAW_S, "miniters": 1, **options}
    if in_notebook():
        return _NotebookBar(disable=not is_shown, file=io.StringIO(), ncols=100, ascii=False, **how)
    is_shown = is_shown and is_terminal(sys.stdout)
    return _Bar(disable=not is_shown, file=sys.stdout, dynamic_ncols=True, **how)


class EpochProgress:
    """Counts the steps and samples of an epoch, and shows them in a bar."""

    def __init__(self, bar: _Bar) -> None:
        """`bar` counts steps."""
        self._bar = bar
        self._started = self._lap_started = time.perf_counter()
        self._num_samples = self._lap_samples = 0

    def step(self, num_samples: int) -> None:
        """Count a step of so many samples."""
        self._num_samples += num_samples
        self._lap_samples += num_samples
        self._bar.update()

    def lap(self) -> tuple[int, float]:
        """Return the samples since the last lap, and the seconds that they took; call it when the device is done."""
        now = time.perf_counter()
        lap = self._lap_samples, now - self._lap_started
        self._lap_samples, self._lap_started = 0, now
        return lap

    def whole(self) -> tuple[int, float]:
        """Return the samples and seconds of the epoch so far, in this process; call it when the device is done."""
        return self._num_samples, time.perf_counter() - self._started

    def show(self, values: dict[str, float]) -> None:
        """Show values of the last logged step beside the bar."""
        self._bar.set_postfix_str(named(values, ", "), refresh=False)


class Display:
    """The bars of a run, in a terminal or a notebook; elsewhere, and outside `run`, there are none."""

    def __init__(self) -> None:
        self._run: _Bar | None = None
        self._inner: _Bar | None = None

    @contextmanager
    def run(self, num_epochs: int, done: float, is_shown: bool) -> Iterator[None]:
        """Show how far the run is while this is entered; `done` epochs are, a part of one included."""
        with _new_bar(is_shown, "run", num_epochs, initial=done, bar_format=RUN_FORMAT, smoothing=0) as self._run:
            try:
                yield
            finally:
                if self._inner is not None:  # of a validation that was stopped
                    self._inner.close()
                self._run = self._inner = None

    @contextmanager
    def epoch(self, epoch: int, num_steps: int, first_step: int) -> Iterator[EpochProgress]:
        """Show the steps of an epoch, from `first_step` on."""
        with self._inner_bar(f"epoch {epoch}", num_steps, first_step) as bar:
            bar.run, bar.first = self._run, epoch - 1
            if first_step and self._run is not None and not self._run.disable:  # resumed
                self._run.initial += first_step / num_steps  # else these steps would count as made in no time
            yield EpochProgress(bar)

    def follow(self, batches: Iterable[T], desc: str, num_batches: int | None) -> Iterator[T]:
        """Yield the batches of a validation, and show how many there were."""
        return _counted(batches, self._inner_bar(desc, num_batches or 0, 0))

    def _inner_bar(self, desc: str, total: int, initial: int) -> _Bar:
        how = {"unit": "step", "position": 1, "bar_format": STEP_FORMAT}
        self._inner = _new_bar(self._run is not None, desc, total, initial=initial, **how)
        return self._inner

    def end_epoch(self, epoch: int, note: str) -> None:
        """Show that `epoch` is done; `note` is what is best so far."""
        if self._run is not None:
            self._run.n = epoch
            self._run.set_postfix_str(note)


def follow(batches: Iterable[T], desc: str, num_batches: int) -> Iterator[T]:
    """Yield the batches, and show how many there were in a bar of their own."""
    return _counted(batches, _new_bar(True, desc, num_batches, bar_format=STEP_FORMAT))


def _counted(batches: Iterable[T], bar: _Bar) -> Iterator[T]:
    with bar:
        for batch in batches:
            yield batch
            bar.update()
