"""A slot: what a section of the config may name, and how a name is found without reaching anything else."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

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

    def find(self, name: Any, where: str) -> Callable[..., Any]:
        """Return the class or function called `name`; raise ConfigError, with the nearest name, where there is none."""
        for package in self.packages:
            found: Callable[..., Any] | None = vars(import_module(package)).get(name) if isinstance(name, str) else None
            if found is not None and self._allows(name, found, package):
                return found
        allowed = [key for package in self.packages for key, _ in self._allowed_in(package)]
        raise ConfigError(f"{where}: unknown type {name!r}; {nearest(str(name), allowed)}")

    def problems(self, obj: Callable[..., Any], args: Mapping[str, Any], where: str) -> Iterator[str]:
        """Yield what is wrong with calling `obj` with `args`: unknown, missing or reserved names."""
        parameters = inspect.signature(obj).parameters
        names = [name for name, p in parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        given_by_code = self.provided if inspect.isclass(obj) else tuple(names[: self.num_inputs])
        allowed = [name for name in names if name not in given_by_code]
        takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        for name in args:
            if name in given_by_code:
                yield f"{where}.{name}: is given by the code and cannot stand in a config"
            elif name not in allowed and not takes_any:
                yield f"{where}.{name}: unknown argument of {obj.__name__}; {nearest(name, allowed)}"
        for name in allowed:
            if parameters[name].default is inspect.Parameter.empty and name not in args:
                yield f"{where}.{name}: missing; {obj.__name__} needs it"

    def _allowed_in(self, package: str) -> Iterator[tuple[str, Any]]:
        for name, obj in vars(import_module(package)).items():
            if self._allows(name, obj, package):
                yield name, obj

    def _allows(self, name: Any, obj: Any, package: str) -> bool:
        defined_in = getattr(obj, "__module__", None) or ""
        if name is None or name.startswith("_") or not f"{defined_in}.".startswith(f"{package}."):
            return False
        if inspect.isclass(obj):
            is_concrete = obj is not self.base and not inspect.isabstract(obj)
            return self.base is not None and issubclass(obj, self.base) and is_concrete
        return self.num_inputs is not None and inspect.isfunction(obj)
