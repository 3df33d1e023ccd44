"""Loads the model of a run, to be used and not trained: nothing of its data is read."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from checkpoint.file import BEST, find_checkpoint, load_checkpoint
from checkpoint.parts import eval_weights, saved_facts
from checkpoint.run_dir import saved_config
from parse_config import ConfigParser
from utils import CheckpointError, prepare_device, to_device
from utils.rng import cpu_rng_kept
from utils.weights import load_weights


class LoadedRun(NamedTuple):
    """The model of a checkpoint in eval mode, and what else the checkpoint and its config say."""

    model: nn.Module
    config: ConfigParser
    facts: dict[str, Any]  # of the training data, on the device
    path: Path  # of the checkpoint
    epoch: int
    device: torch.device


def load_run(run: str | Path, device: str | None = None) -> LoadedRun:
    """Load a checkpoint, or of a run directory the best one, else the newest; `device` is the config's by default.

    The weights are the average's where the run has one, as in test.py. The config is that of the run directory; of a
    checkpoint that was copied elsewhere, its own. Raises CheckpointError, ConfigError, RunDirError.
    """
    path = find_checkpoint(run, BEST)
    checkpoint = load_checkpoint(path)
    is_in_run = (path.parent / "config.json").exists()
    saved = saved_config(path.parent) if is_in_run else deepcopy(checkpoint.get("config"))
    if not isinstance(saved, dict):
        raise CheckpointError(f"{path}: has no config")
    with cpu_rng_kept():  # which making a model draws from
        config = ConfigParser(saved, resume=path)
        place, _ = prepare_device(config["n_gpu"], device or config["device"])
        config.facts = to_device(saved_facts(checkpoint, {}), place)
        model = config.init_obj("arch")
    load_weights(model, eval_weights(checkpoint), str(path))
    return LoadedRun(model.to(place).eval(), config, config.facts, path, checkpoint["epoch"], place)
