"""What train.py does instead of training: --check, --as-if and --lr-find."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from parse_config import ConfigParser
from preflight.as_if import rehearse_as_if
from preflight.lr_find import find_lr
from preflight.rehearsal import rehearse


def try_out(config: ConfigParser, build_trainer: Callable[[ConfigParser], Any]) -> list[str]:
    """Return the lines to print. Whatever a run would fail at is raised here as it would be there."""
    if config.as_if:
        return rehearse_as_if(config, build_trainer)
    trainer = build_trainer(config)
    return find_lr(trainer) if config.finds_lr else rehearse(trainer)
