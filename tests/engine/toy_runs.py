"""Runs of the toy in this process, and stops in their middle."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

import toy
from base import BaseTrainer
from faults import assert_same_run, the_run, with_changes
from helpers import write_given
from parse_config import ConfigParser
from utils import Stopped


def small_config(save_dir: Path, **changes: Any) -> dict[str, Any]:
    """Return the toy's config: 2 epochs of 6 steps, everything that is random turned on; with keys changed."""
    return with_changes(deepcopy(toy.CONFIG), trainer__save_dir=str(save_dir), **changes)


def parsed(config: dict[str, Any], **modification: Any) -> ConfigParser:
    """Return the parser of a config of the toy, with keys such as optimizer__args__lr changed."""
    changes = {path.replace("__", ";"): value for path, value in modification.items()}
    return ConfigParser(config, modification=changes, slots=toy.SLOTS)


def train(config: dict[str, Any], *args: str, trainer: toy.TrainerClass | None = None, **kwargs: Any) -> Path:
    """Train `config` in this process, with further command-line arguments; return the run directory."""
    return run(*("-c", write_given(config)), *args, trainer=trainer, **kwargs)


def run(*args: str, trainer: toy.TrainerClass | None = None, **kwargs: Any) -> Path:
    """Run the toy's main in this process; return the run directory."""
    config = toy.parse_args(list(args))
    toy.main(config, trainer, **kwargs)
    return config.save_dir


@contextmanager
def stopped_at(place: int, number: int = signal.SIGTERM) -> Iterator[None]:
    """Send this process a signal where a run could be saved for the `place`-th time; expect that it stops."""
    save_if_due = BaseTrainer._save_if_due
    places = iter(range(1, 1_000_000))

    def signalling(trainer: BaseTrainer) -> None:
        if next(places) == place:
            os.kill(os.getpid(), number)
        save_if_due(trainer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BaseTrainer, "_save_if_due", signalling)
        with pytest.raises(Stopped):
            yield


def assert_exact_at(
    places: Iterable[int], directory: Path, trainer: toy.TrainerClass | None = None, **changes: Any
) -> Path:
    """Assert that a run which stops at any of `places` goes on to the bit; return the run that never stopped."""
    expected = train(small_config(directory / "whole", **changes), trainer=trainer)
    for place in places:
        config = small_config(directory / f"stopped{place}", **changes)
        with stopped_at(place):
            train(config, trainer=trainer)
        run("-r", str(the_run(config)), trainer=trainer)
        assert_same_run(expected, the_run(config))
    return expected
