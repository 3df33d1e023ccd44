"""The best epochs so far, and when to stop because there is no better one."""

from __future__ import annotations

import math
from typing import Any

import torch

from utils.errors import ConfigError


class Monitor:
    """Follows one value of the epoch log, such as "min val_loss"; "off" follows nothing."""

    def __init__(self, spec: str, early_stop: int | None, keep_best: int = 1) -> None:
        """`spec` is "off" or "min NAME" or "max NAME"; stop after `early_stop` epochs without a better value.

        With a `keep_best` above 1, `top` lists the value and epoch of so many, the best first; of equal ones the
        earlier.
        """
        self.mode, _, self.metric = spec.partition(" ")
        self.early_stop = early_stop if early_stop is not None and early_stop > 0 else math.inf
        self.best = -math.inf if self.mode == "max" else math.inf
        self.best_epoch = 0
        self.num_bad_epochs = 0
        self.num_kept = keep_best if keep_best > 1 else 0
        self.top: list[tuple[float, int]] = []

    @property
    def is_on(self) -> bool:
        """Whether a value is followed."""
        return self.mode != "off"

    @property
    def should_stop(self) -> bool:
        """Whether `early_stop` epochs in a row were no better than the best."""
        return self.is_on and self.num_bad_epochs >= self.early_stop

    def check(self, log: dict[str, float]) -> None:
        """Raise ConfigError where the log of an epoch lacks the value that is followed."""
        if self.is_on and self.metric not in log:
            raise ConfigError(f"trainer.monitor: the epoch gave no {self.metric!r}; it gave {', '.join(log)}")

    def update(self, epoch: int, log: dict[str, float]) -> bool:
        """Take in the log of an epoch; return whether it is the best so far. NaN and infinity never are."""
        if not self.is_on:
            return False
        value = log[self.metric]
        is_better = value > self.best if self.mode == "max" else value < self.best
        is_best = is_better and math.isfinite(value)
        if is_best:
            self.best, self.best_epoch, self.num_bad_epochs = value, epoch, 0
        else:
            self.num_bad_epochs += 1
        if math.isfinite(value):
            sign = -1 if self.mode == "max" else 1
            self.top = sorted([*self.top, (value, epoch)], key=lambda entry: (sign * entry[0], entry[1]))
            self.top = self.top[: self.num_kept]
        return is_best

    def is_kept(self, epoch: int) -> bool:
        """Whether `epoch` is in `top`."""
        return any(epoch == kept for _, kept in self.top)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run must know to stop where the uninterrupted one would."""
        top = [torch.tensor(entry, dtype=torch.float64) for entry in self.top]
        return {"best": self.best, "best_epoch": self.best_epoch, "num_bad_epochs": self.num_bad_epochs, "top": top}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.best, self.best_epoch = float(state["best"]), int(state["best_epoch"])
        self.num_bad_epochs = int(state["num_bad_epochs"])
        self.top = [(float(value), int(epoch)) for value, epoch in state["top"]][: self.num_kept]
