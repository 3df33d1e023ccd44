"""What is seen while a run trains: a bar for the run, one for the epoch, and a table with a row per epoch."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, TypeVar

from tqdm import tqdm

from logger.console import is_terminal, terminal_width
from utils.signals import in_notebook

T = TypeVar("T")
RUN_FORMAT = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
STEP_FORMAT = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {elapsed}<{remaining}{postfix}"
REDRAW_S = 0.2
SHORT = {"perf/samples_per_sec": "samples/s", "lr/group0": "lr"}
LINE_WIDTH = 120
NUMBER_WIDTH = 9  # of 0.0001234 and 1.234e-05


class _Bar(tqdm):
    """A bar in a terminal. Costs nothing per step but a look at the clock, and never waits for the device."""

    run: _Bar | None = None
    """The bar of the run, which is redrawn with this one."""
    first = 0.0
    """Epochs of the run that were done before this one."""

    def display(self, msg: str | None = None, pos: int | None = None) -> Any:
        """Draw this bar, and that of the run above it."""
        if self.run is not None:
            self.run.n = self.first + self.n / (self.total or 1)
            self.run.refresh(nolock=True)
        return super().display(msg, pos)


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
        if self.run is not None:
            self.run.n = self.first + self.n / (self.total or 1)
        text = "\n".join(str(bar) for bar in self.shown if bar is not self or msg != "")
        if text:  # the last state of the last bar stays
            self.output.update({"text/plain": text}, raw=True)
        if msg == "":
            self.shown.remove(self)
        return True


def _new_bar(is_shown: bool, desc: str, total: float, **options: Any) -> _Bar:
    how: dict[str, Any] = {
        "desc": desc,
        "total": total,
        "leave": False,
        "mininterval": REDRAW_S,
        "miniters": 1,
    } | options
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

    @contextmanager
    def run(self, num_epochs: int, done: float, is_shown: bool) -> Iterator[None]:
        """Show how far the run is while this is entered; `done` epochs are, a part of one included."""
        with _new_bar(is_shown, "run", num_epochs, initial=done, bar_format=RUN_FORMAT, smoothing=0) as self._run:
            try:
                yield
            finally:
                self._run = None

    @contextmanager
    def epoch(self, epoch: int, num_steps: int, first_step: int) -> Iterator[EpochProgress]:
        """Show the steps of an epoch, from `first_step` on."""
        with self._inner_bar(f"epoch {epoch}", num_steps, first_step) as bar:
            bar.run, bar.first = self._run, epoch - 1
            if (
                self._run is not None and not self._run.disable and first_step
            ):  # resumed within an epoch: what was done before has no speed
                self._run.initial += first_step / num_steps  # else these steps would count as made in no time
            yield EpochProgress(bar)

    def follow(self, batches: Iterable[T], desc: str, num_batches: int | None) -> Iterator[T]:
        """Yield the batches of a validation, and show how many there were."""
        with self._inner_bar(desc, num_batches or 0, 0) as bar:
            for batch in batches:
                yield batch
                bar.update()

    def _inner_bar(self, desc: str, total: int, initial: int) -> _Bar:
        how: dict[str, Any] = {"initial": initial, "unit": "step", "position": 1, "bar_format": STEP_FORMAT}
        return _new_bar(self._run is not None, desc, total, **how)

    def end_epoch(self, epoch: int, note: str) -> None:
        """Show that `epoch` is done; `note` is what is best so far."""
        if self._run is not None:
            self._run.n = epoch
            self._run.set_postfix_str(note)


def follow(batches: Iterable[T], desc: str, num_batches: int) -> Iterator[T]:
    """Yield the batches, and show how many there were in a bar of their own."""
    with _new_bar(True, desc, num_batches, bar_format=STEP_FORMAT) as bar:
        for batch in batches:
            yield batch
            bar.update()


# The table.


def epoch_line(start: str, log: dict[str, float], monitored: str, is_best: bool) -> str:
    """Return what an epoch gave in one line, for files and pipes: of many values those that matter most."""
    for count in range(len(log), -1, -1):
        text = named({name: log[name] for name in _most_important(log, monitored, count)}, "  ")
        line = f"{start}  {text}{_hidden(len(log) - count)}{'  (best)' if is_best else ''}"
        if len(line) <= LINE_WIDTH:
            break
    return line


def epoch_row(start: str, log: dict[str, float], monitored: str) -> tuple[str, str]:
    """Return (header, row) of the table of epochs, which is as wide as the terminal allows."""
    for count in range(len(log), -1, -1):
        names, hidden = _most_important(log, monitored, count), _hidden(len(log) - count)
        widths = [max(len(SHORT.get(name, name)), NUMBER_WIDTH) for name in names]
        header = f"{'epoch':>{max(5, len(start))}}"
        header += "".join(f"  {SHORT.get(name, name):>{width}}" for name, width in zip(names, widths))
        if len(header) + max(len(hidden), len("  best")) < terminal_width():
            break
    row = f"{start:>5}" + "".join(f"  {_number(name, log[name]):>{width}}" for name, width in zip(names, widths))
    return header + hidden, row


def _hidden(count: int) -> str:
    return f"  (+{count} in metrics.jsonl)" if count else ""


def named(values: dict[str, float], separator: str) -> str:
    """Return names and values as text."""
    return separator.join(f"{SHORT.get(name, name)} {_number(name, value)}" for name, value in values.items())


def _number(name: str, value: float) -> str:
    return f"{value:,.0f}" if name == "perf/samples_per_sec" else f"{value:.4g}"


def _most_important(log: dict[str, float], monitored: str, count: int) -> Sequence[str]:
    """Return `count` names, in the order of the log: the monitored one, losses, validation, then the rest."""

    def importance(name: str) -> int:
        ranks = [name == monitored, name in ("loss", "val_loss"), name.startswith("val_"), "/" not in name, True]
        return ranks.index(True)

    chosen = set(sorted(log, key=importance)[:count])
    return [name for name in log if name in chosen]
