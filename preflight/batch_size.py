"""Finding the largest batch that fits in memory, for `"batch_size": "auto"`."""

from __future__ import annotations

from collections.abc import Callable

import torch

from base import BaseTrainer
from distributed import world_size
from parse_config import ConfigParser
from preflight.rehearsal import run_few_steps
from utils.annotations import MAX_COUNT
from utils.device import free_memory, memory_limit, peak_memory
from utils.errors import ConfigError
from utils.failures import is_out_of_memory

PROBE = MAX_COUNT  # the batch size that the trial trainer is built with: one step an epoch, which no schedule outlasts
MAY_BE_MEMORY = ("could not create a", "unable to find an engine", "CUDNN_STATUS")
"""What cuDNN and oneDNN say where they miss memory, and of much else."""


def choose_batch_size(config: ConfigParser, build_trainer: Callable[[ConfigParser], BaseTrainer]) -> None:
    """Where the config's batch size is "auto", find the largest that fits, with a trainer that is thrown away."""
    if config["data_loader"].get("args", {}).get("batch_size") != "auto":
        return
    if world_size() > 1:
        raise ConfigError('data_loader.args.batch_size: "auto" is for one process; give a number, of all processes')
    config.resolve("data_loader", {"batch_size": PROBE})
    batch_size = largest_batch_size(build_trainer(config))
    free_memory()
    config.resolve("data_loader", {"batch_size": batch_size})
    config.get_logger("train").info(f"batch_size: {batch_size} is the largest that fits")


def largest_batch_size(trainer: BaseTrainer) -> int:
    """Return the largest power of two, at most the number of training samples, with which training steps fit in memory.

    Doubles until a step does not fit; on a CPU, where memory that is promised may not be there, and a container that
    takes too much is killed, until the next one would take most of what there is. The trainer must not be used to train
    afterwards.
    """
    trainer.loop.attach()
    loader = trainer.loop.loader
    if not trainer.loop.is_followed:
        raise ConfigError('data_loader.args.batch_size: "auto" needs a map-style dataset; give a number')
    size, limit = 1, memory_limit()
    trainer._preflight()
    if "lr_scheduler" in vars(trainer):  # a schedule may have fewer steps than the search
        trainer.lr_scheduler = None  # type: ignore[attr-defined]
    with torch.compiler.set_stance("force_eager"):  # compiling for each size would take minutes
        while 2 * size <= loader.n_samples and _fits(trainer, 2 * size):
            size *= 2
            used = peak_memory(trainer.device)
            if trainer.device.type == "cpu" and used and limit and 2 * used > 0.8 * limit:
                break
    return size


def _fits(trainer: BaseTrainer, batch_size: int) -> bool:
    """Whether an epoch of two steps can be trained and validated: the second has the optimizer's state beside it."""
    try:
        for part in (trainer.loop.loader, vars(trainer).get("valid_data_loader")):
            sampler = getattr(part, "batch_sampler", None)
            if sampler is not None:
                sampler.batch_size = batch_size
        for _ in range(2):  # the data may be one step
            run_few_steps(trainer, 1)
    except Exception as error:
        may_be_memory = isinstance(error, RuntimeError) and any(text in str(error) for text in MAY_BE_MEMORY)
        if not (may_be_memory or is_out_of_memory(error)):
            raise
        return False
    finally:
        free_memory()
    return True
