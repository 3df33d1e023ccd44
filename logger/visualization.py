"""TensorBoard."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch.utils.tensorboard.writer as torchs
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from logger.event_file import EventFile

WITHOUT_MODE = ("add_histogram",)  # as in the published template


class TensorboardWriter:
    """A SummaryWriter that knows the step: every `add_*` of torch's, without the step. Disabled, it does nothing.

    What is added before `open` is kept and written then, so a trainer may use its writer from the first line on.
    """

    def __init__(self, log_dir: str | Path | None = None, logger: Any = None, enabled: bool = True) -> None:
        """Write into `log_dir`, or keep everything until `open`. `logger` is accepted for the published template."""
        self.writer: SummaryWriter | None = None
        self.enabled = enabled
        self.step = 0
        self.mode = ""
        self.first_step = 0  # of a resumed epoch, whose loop counts from 0 again
        self.tags: set[str] = set()  # of the curves that were added here
        self._early: list[Callable[[], None]] = []
        if log_dir is not None:
            self.open(log_dir)

    def open(self, log_dir: str | Path, suffix: str = "") -> None:
        """Write into `log_dir` from now on, what came earlier first; the names of the files end in `suffix`."""
        if self.enabled:
            torchs.EventFileWriter = EventFile  # torch makes more files in some `add_*`
            self.writer = SummaryWriter(str(log_dir), filename_suffix=suffix)
        early, self._early = self._early, []
        for call in early:
            call()

    def set_step(self, step: int, mode: str = "train") -> None:
        """Let the following calls be of `step`; their tags end in the `mode`, unless that is ""."""
        self.step, self.mode = step + (self.first_step if mode == "train" else 0), mode

    def __getattr__(self, name: str) -> Callable[..., None]:
        """Return torch's `add_*` called `name`, which gets the step and a tag that ends in the mode."""
        if not name.startswith("add_") or not hasattr(SummaryWriter, name):
            raise AttributeError(f"{type(self).__name__} has no {name!r}")
        return partial(self._add, name)

    def _add(self, name: str, *args: Any, **kwargs: Any) -> None:
        parameters = _parameters(name)
        if parameters[0] in kwargs:
            args = (kwargs.pop(parameters[0]), *args)
        if args and parameters[0] in ("tag", "main_tag") and self.mode and name not in WITHOUT_MODE:
            args = (f"{args[0]}/{self.mode}", *args[1:])
        is_given = "global_step" in kwargs or "global_step" in parameters[: len(args)]
        if "global_step" in parameters and not is_given:
            kwargs["global_step"] = self.step
        if name == "add_scalar" and args:
            self.tags.add(args[0])
        if not self.enabled:
            return
        if self.writer is None:
            self._early.append(lambda: getattr(self.writer, name)(*args, **kwargs))
        else:
            getattr(self.writer, name)(*args, **kwargs)

    def flush(self) -> None:
        """Hand what is queued to the operating system."""
        if self.writer:
            self.writer.flush()

    def close(self) -> None:
        """Flush and close."""
        if self.writer:
            self.writer.close()


@cache
def _parameters(name: str) -> list[str]:
    """Return the names of the parameters of torch's method `name`, without self."""
    return list(inspect.signature(getattr(SummaryWriter, name)).parameters)[1:]


def heatmap(matrix: Tensor, cell: int = 16) -> Tensor:
    """Return a picture, (1, H, W) float in [0, 1], of a matrix such as a confusion matrix: each row by its own sum.

    The last two dimensions of `matrix` are drawn, `cell` pixels an element, one above the other where there are more.
    """
    rows = matrix.reshape(-1, matrix.shape[-1]).double()
    shares = rows / rows.abs().sum(dim=1, keepdim=True).clamp(min=1e-12)
    return shares.abs().clamp(0, 1).float().repeat_interleave(cell, 0).repeat_interleave(cell, 1).unsqueeze(0)
