"""What can be checked only with model, data and optimizer built, and needs no batch."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    LambdaLR,
    LRScheduler,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
)

from parse_config.try_out import check_rates
from utils import ConfigError
from utils.nested import by_name, unnamed

MAX_TRIED_STEPS = 2000  # of a schedule: 0.1 s at most
GRAPH_MODES = ("reduce-overhead", "max-autotune")  # of torch.compile, with CUDA graphs


def check_run(trainer: Any) -> None:
    """Raise ConfigError where optimizer, scheduler or CUDA graph do not fit what this run is.

    `trainer` is a Trainer of trainer/trainer.py.
    """
    trainer.loop.refuse_what_a_step_ignores()
    for name, scheduler in by_name(trainer.lr_scheduler).items():
        _check_schedule(trainer, name, scheduler)
    _try_optimizers(trainer)
    mode = trainer.options.compile and trainer.options.compile.mode
    if mode in GRAPH_MODES and trainer.options.grad_accum_steps > 1:  # one microbatch would overwrite another's
        raise ConfigError(f"trainer.compile.mode: {mode} does not go with grad_accum_steps; give default")
    if trainer.options.cuda_graph:
        _check_graph(trainer, mode)


def _interval_of(trainer: Any, name: str) -> str:
    """Return how often the schedule `name` of several, or "", steps."""
    return str(by_name(trainer.config.section("lr_scheduler"))[name].interval)


def _check_schedule(trainer: Any, name: str, scheduler: Any) -> None:
    """Raise ConfigError where the schedule `name` of several, or "", does not fit what this run is."""
    path, interval = f"lr_scheduler.{name}".rstrip("."), _interval_of(trainer, name)
    if isinstance(scheduler, ReduceLROnPlateau):
        if interval == "step":
            raise ConfigError(f"{path}.interval: ReduceLROnPlateau follows a value of the epoch; give 'epoch'")
        if scheduler.mode != trainer.monitor.mode:
            followed = trainer.options.monitor
            raise ConfigError(f"{path}.args.mode: {scheduler.mode!r}, but the value to follow is {followed!r}")
    num_steps = trainer.epochs * (trainer.num_steps if interval == "step" else 1)
    _check_schedule_lasts(path, scheduler, num_steps)


def _check_graph(trainer: Any, mode: str | None) -> None:
    """Raise ConfigError where a CUDA graph would not hold all that a step changes."""
    changes_momentum = getattr(trainer.lr_scheduler, "cycle_momentum", False)
    reasons = [
        (isinstance(trainer.optimizer, dict), "it is for one optimizer"),
        (trainer.device.type != "cuda", f"it needs a GPU; this run is on {trainer.device}"),
        (bool(trainer.config["fine_tune"]["unfreeze_at"]), "the graph's weights stay, but fine_tune.unfreeze_at adds"),
        (trainer.scaler.is_enabled(), "precision fp16 has a loss scale that changes; give bf16"),
        (trainer.train_metrics.has_modules, "torchmetrics count on the host; give functions of model/metric.py"),
        (trainer.options.grad_checkpointing, "it cannot hold grad_checkpointing, which looks at the random state"),
        (trainer.options.detect_anomaly, "detect_anomaly waits for the device"),
        (changes_momentum, "the scheduler changes momentum too; give cycle_momentum false"),
        (mode in GRAPH_MODES, f"compile mode {mode} makes graphs of its own"),
    ]
    for is_so, reason in reasons:
        if is_so:
            raise ConfigError(f"trainer.cuda_graph: {reason}")


def _check_schedule_lasts(where: str, whole: LRScheduler, num_steps: int) -> None:
    """Raise ConfigError where the schedule at `where`, or one in it, ends or makes no sense before its last step."""
    for path, scheduler, last in _inner_schedules(where, whole, num_steps):
        if isinstance(scheduler, OneCycleLR) and scheduler.total_steps < last:
            raise ConfigError(f"{path}.args.total_steps: {scheduler.total_steps}, but the run makes {last}")
        for function in scheduler.lr_lambdas if isinstance(scheduler, LambdaLR) else []:
            try:
                function(last)
            except (ValueError, ArithmeticError) as error:
                raise ConfigError(f"{path}.args.lr_lambda: {error}") from None


def _inner_schedules(path: str, scheduler: LRScheduler, last: int) -> Iterator[tuple[str, LRScheduler, int]]:
    """Yield (config path, schedule, its last step) of a schedule, or of each that it is made of."""
    if not isinstance(scheduler, SequentialLR | ChainedScheduler):
        yield path, scheduler, last
        return
    milestones = scheduler._milestones if isinstance(scheduler, SequentialLR) else []
    for index, inner in enumerate(scheduler._schedulers):
        start = milestones[index - 1] if index and milestones else 0
        end = min([last, *milestones[index : index + 1]])
        yield from _inner_schedules(f"{path}.args.schedulers[{index}]", inner, max(0, end - start))


def _try_optimizers(trainer: Any) -> None:
    """Raise ConfigError where an optimizer cannot make a step on the device, or its schedule none of the run's.

    They are built again on stand-ins, so that those of the run stay as they are.
    """
    own = by_name(trainer.optimizer)
    if own.keys() != by_name(trainer.config.section("optimizer")).keys():  # which the project makes itself
        return
    groups = {name: [_stand_in(group) for group in one.param_groups] for name, one in own.items()}
    twins = by_name(trainer.config.init_obj("optimizer", params=unnamed(groups)))
    if any(type(twins[name]) is not type(one) for name, one in own.items()):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, optimizer in twins.items():
            try:
                optimizer.step()
            except (AssertionError, RuntimeError) as error:
                if "dense gradients" not in str(error):  # of an optimizer for sparse ones
                    text = f"{type(optimizer).__name__} fails with them on {trainer.device}: {error}".splitlines()[0]
                    raise ConfigError(f"optimizer.{name}".rstrip(".") + f".args: {text}") from None
        schedulers = by_name(trainer.lr_scheduler)
        for name, twin in by_name(trainer.config.init_obj("lr_scheduler", optimizer=unnamed(twins))).items():
            if _interval_of(trainer, name) == "step" and type(twin) is type(schedulers.get(name)):
                num_steps = min(trainer.epochs * trainer.num_steps, MAX_TRIED_STEPS)
                check_rates(twins[name], twin, num_steps, f"lr_scheduler.{name}".rstrip(".") + ".args")


def _stand_in(group: dict[str, Any]) -> dict[str, Any]:
    """Return a group of an optimizer, as before its schedule began, with a small parameter instead of its own."""
    parameter = nn.Parameter(next(iter(group["params"]), torch.zeros(())).new_zeros(2, 2))
    parameter.grad = torch.zeros_like(parameter)
    options = {key: value for key, value in group.items() if key not in ("params", "param_names", "initial_lr")}
    return deepcopy({**options, "lr": group.get("initial_lr", group["lr"])}) | {"params": [parameter]}
