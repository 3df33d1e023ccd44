"""Sharing a run between processes, once its objects are built: the samples, and what is trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from base.groups import optimizers_of
from base.share import Slices, Turns
from distributed import rank, world_size
from preflight.trial import nothing_kept
from speed import StepProfiler
from utils import ConfigError

NUM_WARM_UPS = 2  # backward passes after which DDP has put its buckets into the order that they stay in


def share_data(trainer: Any) -> None:
    """Let each process compute slices of every training batch, and whole batches of validation in turn.

    Raises ConfigError where options do not go with several processes.
    """
    strategy = trainer.strategy
    strategy.check()
    for optimizer in optimizers_of(trainer):
        strategy.check_optimizer(optimizer)
    if trainer.options.strategy.type == "fsdp" and world_size() > 1 and trainer.config["fine_tune"]["unfreeze_at"]:
        raise ConfigError("fine_tune.unfreeze_at: does not go with fsdp, which shards the gradients that there are")
    if strategy.num_shards > 1:
        trainer.data_loader.batch_sampler.share = Slices(strategy.num_shards, strategy.own_shards)
    if world_size() > 1 and trainer.options.cuda_graph:
        raise ConfigError("trainer.cuda_graph: a graph cannot hold what several processes exchange in a step")
    if world_size() > 1 and trainer.valid_data_loader is not None:
        trainer.valid_data_loader.batch_sampler.share = Turns(rank(), world_size())
    if rank() > 0:
        trainer.profiler = StepProfiler(False)  # one writes the file


def join_processes(trainer: Any, try_batch: Callable[..., Any]) -> None:
    """Hand over to the trainer's strategy what is trained: every module with a parameter that an optimizer has.

    Raises ConfigError where an optimizer has a parameter of no module of the trainer.
    """
    held = vars(trainer).values()
    groups = [group for optimizer in optimizers_of(trainer) for group in optimizer.param_groups]
    parameters = list(dict.fromkeys(parameter for group in groups for parameter in group["params"]))
    modules = [
        value for value in held if isinstance(value, nn.Module) and not set(parameters).isdisjoint(value.parameters())
    ]
    missing = set(parameters) - {parameter for module in modules for parameter in module.parameters()}
    if missing and trainer.strategy.num_shards > 1:
        raise ConfigError(f"optimizer: {len(missing)} parameters are of no module that {type(trainer).__name__} holds")
    trainer.strategy.attach(modules, parameters, trainer.position)
    if world_size() > 1:
        with nothing_kept(trainer):
            for _ in range(NUM_WARM_UPS):
                try_batch(is_training=True).loss.backward()
