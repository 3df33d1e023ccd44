"""Builds what is cheap to build of a config, on stand-ins for weights: libraries check values too."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from parse_config.builder import Builder
from parse_config.groups import options_of
from parse_config.named import MAX_SECTIONS, as_section, is_outer, nested_entries, sections, subsections
from utils.errors import ConfigError
from utils.nested import by_name, first_key, unnamed

NOT_PER_GROUP = ("milestones", "schedulers")  # lists of a scheduler that do not have a value for each group
TINY = 1e-12  # what rounding may leave of a rate that falls to 0
MAX_TRIED_POSITIONS = 1000  # epochs or steps of a schedule


def try_out(builder: Builder) -> None:
    """Build loss, metrics, optimizer, schedule, and what libraries have for the arguments of other sections.

    Raises ConfigError with all that is refused.
    """
    problems = []
    for attempt in _attempts(builder):
        try:
            attempt()
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)


def _attempts(builder: Builder) -> Iterator[Callable[[], Any]]:
    for name in ("loss", "metrics"):
        if _is_complete(builder, name):
            yield partial(_build_measure, builder, name)
    yield from _nested_attempts(builder)
    yield partial(_try_schedules, builder)


def _is_complete(builder: Builder, name: str) -> bool:
    """Whether section `name` needs nothing that only the data knows."""
    for path, section, slot in sections(builder.config, builder.slots):
        if first_key(path) == name and slot.missing(slot.find(section["type"], path), section["args"]):
            return False
    return True


def _build_measure(builder: Builder, name: str) -> None:
    """Build the loss or the metrics; let pass what is refused for the lack of an argument that the data may give."""
    optional = {
        argument
        for path, section, slot in sections(builder.config, builder.slots)
        for argument, parameter in slot.parameters(slot.find(section["type"], path)).items()
        if first_key(path) == name and parameter.default is None and argument not in section["args"]
    }
    try:
        builder.build(name)
    except ConfigError as error:
        if not any(f"`{argument}`" in str(error) for argument in optional):  # in the words of torchmetrics
            raise


def _nested_attempts(builder: Builder) -> Iterator[Callable[[], Any]]:
    """Yield what builds each object of a library that is an argument of a section which only a run builds."""
    for outer_path, outer, outer_slot in sections(builder.config, builder.slots):
        is_built_whole = first_key(outer_path) in ("loss", "metrics", "optimizer", "lr_scheduler")
        if is_built_whole or not is_outer(outer_path):
            continue
        for path, key, slot, entry in nested_entries(outer_path, outer, outer_slot, builder.slots):
            if slot.find(as_section(entry)["type"], path).__module__.startswith("torch"):
                yield partial(builder.build_nested, key, entry, path)


def _try_schedules(builder: Builder) -> None:
    config = builder.config
    if "optimizer" not in config:  # a project with optimizers by other names
        return
    params = {name: _stand_ins(builder, name, section) for name, section in subsections(config["optimizer"]).items()}
    optimizer = builder.build("optimizer", None, params=unnamed(params))
    scheduler = builder.build("lr_scheduler", None, optimizer=optimizer)
    optimizers, written = by_name(optimizer), subsections(config.get("lr_scheduler"))
    for name, schedule in by_name(scheduler).items():
        if not isinstance(schedule, ReduceLROnPlateau):  # which never raises a rate or lowers it below 0
            where = f"lr_scheduler.{name}".rstrip(".") + ".args"
            where += ".lr_lambda" * ("lr_lambda" in written[name].get("args", {}))
            check_rates(optimizers[name], schedule, _min_positions(config["trainer"], written[name]), where)


def _stand_ins(builder: Builder, name: str, section: dict[str, Any]) -> list[dict[str, Any]]:
    """Return groups of one small parameter for the optimizer `section`, with the config's options.

    They are as many as the schedule of that name has values for.
    """
    groups, schedule = section.get("args", {}).get("params", []), f"lr_scheduler.{name}".rstrip(".")
    values = [
        len(value)
        for path, section, _ in sections(builder.config, builder.slots)
        for name, value in section["args"].items()
        if f"{path}.".startswith(f"{schedule}.") and isinstance(value, list) and name not in NOT_PER_GROUP
    ]
    num_groups = min(max([1, *values]) if values else len(groups) + 1, MAX_SECTIONS)
    options = [options_of(group) for group in groups] + [{}] * num_groups
    return [{"params": [torch.nn.Parameter(torch.zeros(2, 2))], **options[i]} for i in range(num_groups)]


def _min_positions(options: dict[str, Any], section: dict[str, Any]) -> int:
    """Return the least number of steps of a schedule; only the data knows how many steps an epoch has."""
    is_per_step = section.get("interval", "epoch") == "step"
    per_epoch = min(options["len_epoch"] or 1, options["limit_batches"] or math.inf) if is_per_step else 1
    return int(min(options["epochs"] * per_epoch, MAX_TRIED_POSITIONS))


def check_rates(optimizer: Any, scheduler: Any, num_positions: int, where: str) -> None:
    """Step a new schedule, on stand-ins for weights, through its first epochs or steps.

    Raises ConfigError where it fails, or a learning rate that would be used is negative or not finite.
    """
    optimizer.step()
    for position in range(num_positions):
        try:
            rates = [float(group["lr"]) for group in optimizer.param_groups]
            scheduler.step()
        except Exception as error:  # of a library, of an expression, or of a function of the project's own
            reason = str(error) or type(error).__name__
            raise ConfigError(f"{where}: {type(scheduler).__name__} fails at {position + 1}: {reason}") from None
        if not all(-TINY <= rate < math.inf for rate in rates):
            raise ConfigError(f"{where}: the learning rate is {rates} at {position}; it must be 0 or more")
