"""Loads the model of a run, to be used and not trained, and the split that it is tested on."""

from __future__ import annotations

import inspect
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.data import DataLoader

from base import BaseDataLoader
from checkpoint.file import BEST, find_checkpoint, load_checkpoint
from checkpoint.parts import eval_weights, saved_facts
from checkpoint.run_dir import saved_config
from parse_config import ConfigParser
from utils import CheckpointError, ConfigError, prepare_device, to_device
from utils.rng import cpu_rng_kept
from utils.weights import load_weights


class LoadedRun(NamedTuple):
    """The model of a checkpoint in eval mode, and what else the checkpoint and its config say."""

    model: nn.Module
    config: ConfigParser
    facts: dict[str, Any]  # of the training data, on the device
    device: torch.device


def load_run(run: str | Path, device: str | None = None) -> LoadedRun:
    """Load a checkpoint, or of a run directory the best one, else the newest; `device` is the config's by default.

    Nothing of the run's data is read. The config is that of the run directory; of a checkpoint that was copied
    elsewhere, its own. Raises CheckpointError, ConfigError, RunDirError.
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
        model = trained_model(config, checkpoint, path, place)
    return LoadedRun(model, config, config.facts, place)


def trained_model(config: ConfigParser, checkpoint: dict[str, Any], path: Path, device: torch.device) -> nn.Module:
    """Return the model of `checkpoint`, which was read from `path`, on `device` and in eval mode.

    The weights are the average's where the run has one. `config.facts` becomes what the training data said, which must
    be of the kinds that it has from the data that was read. Raises CheckpointError, ConfigError.
    """
    config.facts = to_device(saved_facts(checkpoint, config.facts), device)
    model: nn.Module = config.init_obj("arch")
    load_weights(model, eval_weights(checkpoint), str(path))
    return model.to(device).eval()


def given_checkpoint(config: ConfigParser) -> tuple[Path, dict[str, Any]]:
    """Return the path and the content of the checkpoint that the command line names with -r.

    `config.facts` becomes what it says of the training data: a loader may take from it how rows are encoded. Raises
    CheckpointError, and ConfigError where none is named.
    """
    path = config.resume or config.init_from
    if path is None:
        raise ConfigError("no checkpoint: give -r saved/NAME/RUN")
    checkpoint = load_checkpoint(path)
    config.facts = saved_facts(checkpoint, {})
    return path, checkpoint


def test_loader(config: ConfigParser) -> Any:
    """Return the loader of the whole test split, whatever the config says of training. Raises DataError without one."""
    accepted = inspect.signature(config.init_ftn("data_loader").func).parameters
    whole = {"training": False, "shuffle": False, "validation_split": 0.0}
    return config.init_obj("data_loader", **{key: whole[key] for key in whole if key in accepted})


def in_order(data_loader: DataLoader[Any]) -> DataLoader[Any]:
    """Return the batches of a loader in the order of its samples."""
    return data_loader.unshuffled() if isinstance(data_loader, BaseDataLoader) else data_loader
