"""A slot: what a section of the config may name, and how a name is found without reaching anything else."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from torch import nn

from utils.annotations import annotations_of, type_problem
from utils.errors import ConfigError, nearest


@dataclass(frozen=True)
class Slot:
    """Where the `type` of a config section is looked up.

    A type must be *defined* in one of `packages` (its `__module__` lies inside) and be public; so a config, which may
    come from a stranger, never reaches what a module happens to import. Packages are imported only when a name is
    looked up in them, first one first.
    """

    packages: tuple[str, ...]
    base: type | None = None  # classes must derive from it; None: no classes
    num_inputs: int | None = None  # functions get so many positional arguments from the code; None: no functions
    provided: tuple[str, ...] = ()  # arguments of a class that the code gives and a config must not
    excluded: tuple[str, ...] = ()  # names that would be found but cannot be used

    def find(self, name: Any, where: str) -> Callable[..., Any]:
        """Return the class or function called `name`; raise ConfigError, with the nearest name, where there is none."""
        for package in self.packages:
            found: Callable[..., Any] | None = vars(import_module(package)).get(name) if isinstance(name, str) else None
            if found is not None and self._allows(name, found, package):
                return found
        raise ConfigError(f"{where}: unknown type {name!r}; {nearest(str(name), dict(self.types()))}")

    def types(self) -> Iterator[tuple[str, Callable[..., Any]]]:
        """Yield (name, class or function) of everything that `find` finds."""
        for package in self.packages:
            for name, obj in vars(import_module(package)).items():
                if self._allows(name, obj, package):
                    yield name, obj

    def parameters(self, obj: Callable[..., Any]) -> dict[str, inspect.Parameter]:
        """Return the parameters of `obj` that a config may give, by name."""
        signature = inspect.signature(obj).parameters
        named = {n: p for n, p in signature.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
        given_by_code = self._given_by_code(obj, list(named))
        return {name: parameter for name, parameter in named.items() if name not in given_by_code}

    def problems(
        self, obj: Callable[..., Any], args: Mapping[str, Any], where: str, unsure: Collection[str] = ()
    ) -> Iterator[str]:
        """Yield what is wrong with calling `obj` with `args`: unknown, missing, reserved, or of the wrong type.

        Where `obj` takes any keyword, an unknown one is only wrong if its path is in `unsure`.
        """
        signature = inspect.signature(obj).parameters
        takes_any = any(p.kind is p.VAR_KEYWORD for p in signature.values())
        parameters, annotations = self.parameters(obj), annotations_of(obj)
        for name, value in args.items():
            path = f"{where}.{name}"
            if name in self._given_by_code(obj, list(signature)):
                yield f"{path}: is given by the code and cannot stand in a config"
            elif name not in parameters and (not takes_any or path in unsure):
                hint = f"; or --set +{path}=… to give it all the same" if takes_any else ""
                yield f"{path}: unknown argument of {obj.__name__}; {nearest(name, parameters)}{hint}"
            elif name in annotations:
                problem = type_problem(annotations[name], value)
                if problem:
                    yield f"{path}: {problem}"
        for name, parameter in parameters.items():
            if parameter.default is inspect.Parameter.empty and name not in args:
                yield f"{where}.{name}: missing; {obj.__name__} needs it"

    def _takes_inputs(self, cls: Any) -> bool:
        """Whether the objects of a class can be called with the inputs that functions of this slot get."""
        if self.num_inputs is None or not issubclass(cls, nn.Module):
            return True
        parameters = list(inspect.signature(cls.forward).parameters.values())[1:]
        required = [p for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
        return len(required) <= self.num_inputs

    def _given_by_code(self, obj: Callable[..., Any], names: list[str]) -> tuple[str, ...]:
        return self.provided if inspect.isclass(obj) else tuple(names[: self.num_inputs])

    def _allows(self, name: Any, obj: Any, package: str) -> bool:
        defined_in = getattr(obj, "__module__", None) or ""
        if (
            name is None
            or name.startswith("_")
            or name in self.excluded
            or not f"{defined_in}.".startswith(f"{package}.")
        ):
            return False
        if inspect.isclass(obj):
            is_concrete = obj is not self.base and not inspect.isabstract(obj)
            return self.base is not None and issubclass(obj, self.base) and is_concrete and self._takes_inputs(obj)
        return self.num_inputs is not None and inspect.isfunction(obj)
