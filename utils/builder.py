"""Builds what a section of a checked config names."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import partial, update_wrapper
from typing import Any

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from utils.annotations import with_tensors
from utils.config_check import metric_name
from utils.errors import ConfigError
from utils.expression import parse_expression
from utils.slot import Slot

MAX_TRIED_EPOCHS = 1000


class Builder:
    """Builds objects from the sections of `config`, whose types are those of `slots`."""

    def __init__(self, config: dict[str, Any], slots: Mapping[str, Slot]) -> None:
        """`config` has been checked."""
        self.config = config
        self.slots = slots

    def build(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """Build section `name`: a class becomes an object, a function itself or a partial of it.

        A list of sections gives a list, a missing section None. Raises ConfigError where a library refuses the values.
        """
        section = self.config.get(name)
        if section is None:
            return None
        if isinstance(section, list):
            return [self._build(name, entry, f"{name}.{i}", *args, **kwargs) for i, entry in enumerate(section)]
        return self._build(name, section, name, *args, **kwargs)

    def partial(self, name: str, /, *args: Any, **kwargs: Any) -> partial[Any]:
        """Return a partial of what section `name` names, with its arguments and these."""
        section = self.config[name]
        section = {"type": section} if isinstance(section, str) else section
        found = self.slots[name].find(section["type"], f"{name}.type")
        return partial(found, *args, **self._args(name, found, section), **kwargs)

    def try_out(self) -> None:
        """Build what is cheap to build, on a stand-in weight: libraries check values that annotations do not tell.

        Raises ConfigError with all that is refused.
        """
        problems = []
        for attempt in (partial(self.build, "loss"), partial(self.build, "metrics"), self._try_schedule):
            try:
                attempt()
            except ConfigError as error:
                problems += error.problems
        if problems:
            raise ConfigError(problems)

    def _try_schedule(self) -> None:
        optimizer = self.build("optimizer", params=[torch.nn.Parameter(torch.zeros(2, 2))])
        scheduler = self.build("lr_scheduler", optimizer=optimizer)
        is_per_epoch = scheduler and self.config["lr_scheduler"].get("interval", "epoch") == "epoch"
        last = min(self.config["trainer"]["epochs"], MAX_TRIED_EPOCHS) if is_per_epoch else 0
        if scheduler and not isinstance(scheduler, ReduceLROnPlateau):
            try:
                optimizer.step()
                scheduler.step()
            except Exception as error:  # a period of 0, say
                raise ConfigError(f"lr_scheduler.args: {type(scheduler).__name__} fails with them: {error}") from None
        for function in getattr(scheduler, "lr_lambdas", []):
            for position in range(last + 1):
                try:
                    factor = float(function(position))
                except Exception as error:  # of an expression, or of a function of the project's own
                    raise ConfigError(f"lr_scheduler.args.lr_lambda: {error}") from None
                if not math.isfinite(factor):
                    raise ConfigError(f"lr_scheduler.args.lr_lambda: is {factor} at {position}")

    def _build(self, name: str, section: str | dict[str, Any], path: str, /, *args: Any, **kwargs: Any) -> Any:
        section = {"type": section} if isinstance(section, str) else section
        found = self.slots[name].find(section["type"], f"{path}.type")
        config_args = self._args(name, found, section)
        if inspect.isclass(found):
            built = _construct(path, found, *args, **config_args, **kwargs)
        elif name == "metrics" or config_args:
            built = update_wrapper(partial(found, **config_args), found)
        else:
            built = found
        if name == "metrics":  # what it is called in logs
            built.__name__ = metric_name(section)
        return built

    def _args(self, name: str, found: Callable[..., Any], section: dict[str, Any]) -> dict[str, Any]:
        """Return the section's arguments, with what JSON cannot hold made of it: tensors, `lr_lambda`."""
        args = deepcopy(section.get("args", {}))
        if name == "loss":  # the weights of classes, say
            args = with_tensors(found, args)
        if "lr_lambda" in args:
            lambdas = args["lr_lambda"]
            build = partial(self._lr_lambda, variable=section.get("interval", "epoch"))
            args["lr_lambda"] = [build(entry) for entry in lambdas] if isinstance(lambdas, list) else build(lambdas)
        return args

    def _lr_lambda(self, entry: str | dict[str, Any], variable: str) -> Callable[[int], float]:
        if isinstance(entry, str):
            return parse_expression(entry, variable)
        function = self.slots["lr_lambda"].find(entry["type"], "lr_scheduler.args.lr_lambda.type")
        return partial(function, **entry.get("args", {}))


def _construct(path: str, cls: type, /, *args: Any, **kwargs: Any) -> Any:
    try:
        return cls(*args, **kwargs)
    except Exception as error:
        if cls.__module__.startswith("torch"):  # torch or torchmetrics refuses the values; our own bugs stay bugs
            raise ConfigError(f"{path}.args: {cls.__name__} refuses them: {str(error).splitlines()[0]}") from error
        raise
