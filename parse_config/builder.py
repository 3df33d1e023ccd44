"""Builds what a section of a checked config names."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from copy import deepcopy
from functools import partial, update_wrapper
from typing import Any

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from parse_config.expression import parse_expression
from parse_config.problems import metric_name
from parse_config.schema import MAX_SECTIONS, Slots, as_section, sections
from parse_config.slot import Slot
from parse_config.type_check import with_tensors
from utils.errors import ConfigError

TINY = 1e-12  # what rounding may leave of a rate that falls to 0
MAX_TRIED_POSITIONS = 1000  # epochs or steps of a schedule


class Builder:
    """Builds objects from the sections of `config`, whose types are those of `slots`.

    `facts` are what the data says, by argument name: a class or function that takes one of them gets it, unless the
    config gives another.
    """

    def __init__(self, config: dict[str, Any], slots: Slots) -> None:
        """`config` has been checked."""
        self.config = config
        self.slots = slots
        self.facts: dict[str, Any] = {}

    def build(self, name: str, module: Any = None, /, *args: Any, **kwargs: Any) -> Any:
        """Build section `name`: a class becomes an object, a function itself or a partial of it.

        A list of sections gives a list, a missing section None. `module`, which the code gives, is searched first,
        whatever it holds. Raises ConfigError where a library refuses the values, or an argument is missing.
        """
        section = self.config.get(name)
        if section is None:
            return None
        if isinstance(section, list):
            return [self._build(name, entry, f"{name}.{i}", module, *args, **kwargs) for i, entry in enumerate(section)]
        return self._build(name, section, name, module, *args, **kwargs)

    def partial(self, name: str, module: Any = None, /, *args: Any, **kwargs: Any) -> partial[Any]:
        """Return a partial of what section `name` names, with its arguments and these."""
        section = as_section(self.config[name])
        found = self._find(name, section, f"{name}.type", module)
        return partial(found, *args, **self._args(name, found, section), **kwargs)

    def try_out(self) -> None:
        """Build what is cheap to build, on a stand-in weight: libraries check values that annotations do not show.

        Raises ConfigError with all that is refused.
        """
        problems = []
        attempts: list[Callable[[], Any]] = [
            partial(self.build, name) for name in ("loss", "metrics") if self._is_complete(name)
        ]
        for attempt in (*attempts, self._try_schedule):
            try:
                attempt()
            except ConfigError as error:
                problems += error.problems
        if problems:
            raise ConfigError(problems)

    def _is_complete(self, name: str) -> bool:
        """Whether section `name` needs nothing that only the data knows."""
        for path, section, slot in sections(self.config, self.slots):
            if path.split(".")[0] == name and slot.missing(slot.find(section["type"], path), section["args"]):
                return False
        return True

    def _try_schedule(self) -> None:
        if "optimizer" not in self.config:  # a project with optimizers by other names
            return
        args = (self.config.get("lr_scheduler") or {}).get("args", {})
        num_values = max([1, *(len(value) for value in args.values() if isinstance(value, list))])  # one for each group
        num_groups = min(num_values, MAX_SECTIONS)
        stand_ins = [{"params": [torch.nn.Parameter(torch.zeros(2, 2))]} for _ in range(num_groups)]
        optimizer = self.build("optimizer", None, params=stand_ins)
        scheduler = self.build("lr_scheduler", None, optimizer=optimizer)
        if scheduler and not isinstance(scheduler, ReduceLROnPlateau):  # which never raises a rate or lowers it below 0
            where = "lr_scheduler.args.lr_lambda" if "lr_lambda" in args else "lr_scheduler.args"
            check_rates(optimizer, scheduler, self._min_positions(), where)

    def _min_positions(self) -> int:
        """Return the least number of steps of the schedule; only the data knows how many steps an epoch has."""
        options, section = self.config["trainer"], self.config["lr_scheduler"]
        is_per_step = section.get("interval", "epoch") == "step"
        per_epoch = min(options["len_epoch"] or 1, options["limit_batches"] or math.inf) if is_per_step else 1
        return int(min(options["epochs"] * per_epoch, MAX_TRIED_POSITIONS))

    def _build(self, name: str, entry: Any, path: str, module: Any, /, *args: Any, **kwargs: Any) -> Any:
        section = as_section(entry)
        found = self._find(name, section, f"{path}.type", module)
        config_args = self._args(name, found, section)
        slot = self.slots.get(name)
        if isinstance(slot, Slot) and not args and module is None:  # positional arguments are the published template's
            missing = [arg for arg in slot.missing(found, {**config_args, **kwargs}) if arg not in slot.provided]
            if missing:
                offered = f"the data offers {', '.join(self.facts) or 'nothing'}"
                raise ConfigError(
                    f"{path}.args.{arg}: missing; {found.__name__} needs it, {offered}" for arg in missing
                )
        if inspect.isclass(found) or (isinstance(slot, Slot) and slot.factories):
            built = _construct(path, found, *args, **{**config_args, **kwargs})
        elif name == "metrics" or config_args:
            built = update_wrapper(partial(found, **config_args), found)
        else:
            built = found
        if name == "metrics":  # what it is called in logs
            built.__name__ = metric_name(section)
        return built

    def _find(self, name: str, section: dict[str, Any], where: str, module: Any) -> Callable[..., Any]:
        found: Callable[..., Any] | None = getattr(module, str(section["type"]), None)
        slot = self.slots.get(name)
        if found is None and isinstance(slot, Slot):
            return slot.find(section["type"], where)
        if found is None:
            raise ConfigError(f"{where}: {getattr(module, '__name__', 'slots.py')} has no {section['type']!r}")
        return found

    def _args(self, name: str, found: Callable[..., Any], section: dict[str, Any]) -> dict[str, Any]:
        """Return the section's arguments, as tensors and functions where JSON cannot hold them, and the facts."""
        args = deepcopy(section.get("args", {}))
        if name == "loss":  # the weights of classes, say
            args = with_tensors(found, args)
        if "lr_lambda" in args:
            lambdas = args["lr_lambda"]
            build = partial(self._lr_lambda, variable=section.get("interval", "epoch"))
            args["lr_lambda"] = [build(entry) for entry in lambdas] if isinstance(lambdas, list) else build(lambdas)
        wanted = self.facts.keys() & inspect.signature(found).parameters.keys() if self.facts else ()
        return {key: self.facts[key] for key in wanted} | args

    def _lr_lambda(self, entry: str | dict[str, Any], variable: str) -> Callable[[int], float]:
        if isinstance(entry, str):
            return parse_expression(entry, variable)
        function = self._find("lr_lambda", entry, "lr_scheduler.args.lr_lambda.type", None)
        return partial(function, **entry.get("args", {}))


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
            raise ConfigError(f"{where}: {type(scheduler).__name__} fails at {position + 1}: {error}") from None
        if not all(-TINY <= rate < math.inf for rate in rates):
            raise ConfigError(f"{where}: the learning rate is {rates} at {position}; it must be 0 or more")


def _construct(path: str, found: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    try:
        return found(*args, **kwargs)
    except Exception as error:
        if found.__module__.startswith("torch"):  # torch or torchmetrics refuses the values; our own bugs stay bugs
            raise ConfigError(f"{path}.args: {found.__name__} refuses them: {str(error).splitlines()[0]}") from error
        raise
