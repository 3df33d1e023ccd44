"""Builds what a section of a checked config names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import partial, update_wrapper
from typing import Any, Protocol, runtime_checkable

from torch import nn

from parse_config.expression import parse_expression
from parse_config.named import (
    LR_LAMBDA,
    Slots,
    as_section,
    entries,
    is_expression,
    names_in,
    nested_slots,
)
from parse_config.problems import metric_name
from parse_config.slot import Slot
from parse_config.type_check import from_json
from utils.errors import ConfigError
from utils.nested import Models


@runtime_checkable
class KnowsData(Protocol):
    """A loader that offers what its data says, such as the number of samples in each class."""

    def facts(self) -> Mapping[str, Any]:
        """Return plain values and tensors by the name of the argument that takes them."""


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
        self.known: dict[str, Any] = {}  # what the command line says, to whom a slot provides arguments of these names

    def build(self, name: str, module: Any = None, /, *args: Any, **kwargs: Any) -> Any:
        """Build section `name`: a class becomes an object, a function itself or a partial of it.

        A list of sections gives a list, several by name a dict, or Models; a missing section None. `module`, which the
        code gives, is searched first, whatever it holds. Raises ConfigError where a library refuses the values, or an
        argument is missing.
        """
        if self.config.get(name) is None:
            return None
        return self._each(name, lambda entry, path, own: self._build(name, entry, path, module, *args, **own), kwargs)

    def partial(self, name: str, module: Any = None, /, *args: Any, **kwargs: Any) -> Any:
        """Return a partial of what section `name` names, with its arguments and these; of several, a dict."""

        def make(entry: Any, path: str, own: dict[str, Any]) -> Any:
            section = as_section(entry)
            found = self._find(name, section, f"{path}.type", module)
            given = dict(zip(self._provided(name), args)) | own
            return partial(found, *args, **self._args(name, found, section, path, given), **own)

        return self._each(name, make, kwargs)

    def _each(self, name: str, make: Callable[[Any, str, dict[str, Any]], Any], kwargs: dict[str, Any]) -> Any:
        """Return what `make` gives for section `name`, for each in a list, or for each of several by name.

        Of several, each gets its own of the `kwargs` that are dicts: a schedule gets the optimizer of its name.
        """
        section, slot = self.config[name], self.slots.get(name)
        if isinstance(section, list):
            return [make(entry, path, kwargs) for path, entry in entries(section, name)]
        names = names_in(section, slot) if isinstance(slot, Slot) else []
        if not names:
            return make(section, name, kwargs)
        own = {n: {k: v[n] if isinstance(v, dict) else v for k, v in kwargs.items()} for n in names}
        built = {n: make(section[n], f"{name}.{n}", own[n]) for n in names}
        return Models(built) if all(isinstance(one, nn.Module) for one in built.values()) else built

    def _build(self, name: str, entry: Any, path: str, module: Any, /, *args: Any, **kwargs: Any) -> Any:
        section = as_section(entry)
        found = self._find(name, section, f"{path}.type", module)
        slot = self.slots.get(name)
        given = dict(zip(self._provided(name), args)) | kwargs
        config_args = self._args(name, found, section, path, given)
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

    def _args(
        self, name: str, found: Callable[..., Any], section: dict[str, Any], path: str, given: dict[str, Any]
    ) -> dict[str, Any]:
        """Return the section's arguments, built or converted where JSON cannot hold them, and the facts.

        Of what the code gives, `given`, the objects among the arguments get what their slots say, too.
        """
        provided = self._provided(name)  # such as the optimizer's groups, which the code makes of the model
        args = {key: value for key, value in deepcopy(section.get("args", {})).items() if key not in provided}
        args = from_json(found, args)
        slot = self.slots.get(name)
        nested = nested_slots(slot, self.slots) if isinstance(slot, Slot) else {}
        for argument in (argument for argument in args if argument in nested and args[argument] is not None):
            build = partial(self.build_nested, nested[argument][0], given=given, variable=section.get("interval"))
            built = [build(entry, where) for where, entry in entries(args[argument], f"{path}.args.{argument}")]
            args[argument] = built if isinstance(args[argument], list) else built[0]
        names = inspect.signature(found).parameters.keys() if self.facts or provided else ()
        facts = {key: self.facts[key] for key in self.facts.keys() & names}
        return facts | args | {key: self.known[key] for key in self.known.keys() & names & set(provided)}

    def build_nested(
        self, name: str, entry: Any, path: str, given: Mapping[str, Any] | None = None, variable: str | None = None
    ) -> Any:
        """Build what the argument at `path` names, of slot `name`; expressions are of `variable`, by default "epoch".

        A class that needs what is not in `given` becomes a partial: a sampler waits for its samples.
        """
        if is_expression(name, entry):
            return parse_expression(entry, variable or "epoch")
        section = as_section(entry) | {"interval": variable}
        found = self._find(name, section, f"{path}.type", None)
        if name == LR_LAMBDA:
            return partial(found, **section.get("args", {}))
        provided = {key: p for key, p in inspect.signature(found).parameters.items() if key in self._provided(name)}
        taken = {key: value for key, value in (given or {}).items() if key in provided}
        if any(p.default is p.empty and key not in taken for key, p in provided.items()):
            return partial(found, **self._args(name, found, section, path, taken), **taken)
        return self._build(name, section, path, None, **taken)

    def _provided(self, name: str) -> tuple[str, ...]:
        """Return what the code gives to the classes of slot `name`."""
        slot = self.slots.get(name)
        return slot.provided if isinstance(slot, Slot) else ()


def _construct(path: str, found: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    try:
        return found(*args, **kwargs)
    except Exception as error:
        if found.__module__.startswith("torch"):  # torch or torchmetrics refuses the values; our own bugs stay bugs
            raise ConfigError(f"{path}.args: {found.__name__} refuses them: {str(error).splitlines()[0]}") from error
        raise
