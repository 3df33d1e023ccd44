"""What of a trainer goes into a checkpoint, and going on from one exactly."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from checkpoint.environment import differences
from checkpoint.fit import check_like
from checkpoint.parts import MALFORMED, load_part
from checkpoint.shards import Shards
from checkpoint.upgrade import FIRST_PARTS
from distributed import rank
from distributed.strategy import Alone
from parse_config import ConfigParser
from utils import CheckpointError
from utils.annotations import HAS_STATE, MAY_CHANGE
from utils.errors import printable
from utils.metric_tracker import MetricTracker
from utils.nested import first_key
from utils.rng import mix_seed, seed_everything, set_rng_state
from utils.weights import Stateful

MAX_FILE_SIZE = 2**62


def parts_of(holder: object) -> dict[str, Stateful]:
    """Return every attribute of `holder` that has a state, and those in its dicts and lists, as "name.key"; each once.

    A tensor is one, too. A module without weights or buffers, such as most losses, is none.
    """
    parts: dict[str, Stateful] = {}
    seen: set[int] = set()
    for name, value in _named(vars(holder)):
        if isinstance(value, Tensor) and "." not in name:  # a list of the model's parameters is not one of parts
            value = _TensorState(value)
        is_empty = isinstance(value, nn.Module) and not value.state_dict()
        if isinstance(value, Stateful) and not is_empty and id(value) not in seen:
            seen.add(id(value))
            parts[name] = value
    return parts


class _TensorState:
    """A tensor as a part of a checkpoint."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor

    def state_dict(self) -> dict[str, Tensor]:
        """Return the tensor."""
        return {"value": self._tensor}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Copy what `state_dict` returned into the tensor. Raises ValueError where the shape is another."""
        if state["value"].shape != self._tensor.shape:
            raise ValueError(f"is {list(state['value'].shape)}, not {list(self._tensor.shape)}")
        with torch.no_grad():
            self._tensor.copy_(state["value"])


def _named(attributes: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    first = {name: attributes[name] for name in ("model", "optimizer") if name in attributes}  # whatever else they are
    for name, value in {**first, **attributes}.items():
        yield name, value
        if isinstance(value, dict):
            yield from ((f"{name}.{key}", item) for key, item in value.items())
        elif isinstance(value, list | tuple):
            yield from ((f"{name}.{index}", item) for index, item in enumerate(value))


def check_exactness(
    checkpoint: dict[str, Any], environment: dict[str, Any], config: ConfigParser, logger: logging.Logger
) -> None:
    """Raise CheckpointError, or with --allow-inexact warn, where what decides about the bits has changed."""
    try:
        saved = config.with_defaults(checkpoint["config"])
        changes = differences(saved, config.config)
        surroundings = differences(checkpoint["environment"], environment)
    except MALFORMED as error:
        raise CheckpointError(f"{config.resume}: malformed: {type(error).__name__}: {printable(error)}") from None
    elsewhere = surroundings.pop("processor", None)
    if elsewhere and "processor" in checkpoint["environment"]:  # a job that is moved must resume, but not silently
        logger.warning(f"{elsewhere}: the last bits of the results may differ on another processor")
    may_change, has_state = config.marked(MAY_CHANGE), config.marked(HAS_STATE)
    harmless = [change for key, change in changes.items() if key in may_change]
    harmful = [*surroundings.values(), *(change for key, change in changes.items() if key not in may_change)]
    stateful = config.stateful_sections()
    lost = [key for key in changes.keys() - may_change if key in has_state or first_key(key) in stateful]
    if lost or (harmful and not config.allow_inexact):
        hint = "-c with -r starts a new run from these weights"
        hint += "" if lost else "; --allow-inexact resumes anyway"
        raise CheckpointError("\n  ".join([f"{config.resume}: cannot resume exactly:", *harmful, hint]))
    for change in harmful:
        logger.warning(f"not an exact resume: {change}")
    for change in harmless:
        logger.info(f"changed: {change}")


def saved_epoch(checkpoint: dict[str, Any]) -> int:
    """Return the epoch that a run goes on with; 1 of a malformed checkpoint, which `restore` refuses."""
    position = checkpoint.get("position")
    epoch = position.get("epoch") if isinstance(position, dict) else None
    return epoch if type(epoch) is int else 1


def restore(
    checkpoint: dict[str, Any], parts: Mapping[str, Stateful], strategy: Alone, device: torch.device, path: Path
) -> dict[str, float]:
    """Load every part and the random state; return the values of the last finished epoch. Raises CheckpointError."""
    try:
        shards = Shards(checkpoint)
        shards.check(is_shared=True)
        for key, part in parts.items():
            if key in checkpoint or key in FIRST_PARTS or checkpoint["format"] > 1:
                outline = strategy.localized(part, shards.outline(key))
                load_part(part, shards.filled(key, outline), f"{path}: {key}")
        if checkpoint["position"]["step_in_epoch"] == 0:
            for part in parts.values():
                if isinstance(part, MetricTracker):
                    part.reset()  # of an epoch that has ended
        states = checkpoint["rng"]
        set_rng_state(states[rank() if rank() < len(states) else 0], device)
        if rank() >= len(states):  # of fewer processes: a process that comes to them must draw other numbers than they
            seed_everything(mix_seed(torch.initial_seed() % 2**32, rank(), checkpoint["position"]["global_step"]))
        sizes, log = checkpoint["logs"], checkpoint["log"]
        check_like(sizes, dict.fromkeys(sizes, MAX_FILE_SIZE), "logs")
        if not all(isinstance(name, str) and isinstance(value, float) for name, value in log.items()):
            raise TypeError("a value of the epoch is not a number")
        return log
    except MALFORMED as error:
        raise CheckpointError(f"{path}: malformed: {type(error).__name__}: {printable(error)}") from None
