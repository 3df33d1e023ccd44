"""A slot: what a section of the config may name, and how a name is found without reaching anything else."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from parse_config.groups import group_problems
from parse_config.options import Section
from parse_config.type_check import type_problem
from utils.annotations import annotations_of
from utils.errors import ConfigError, nearest

LR_LAMBDA = "lr_lambda"  # the argument of schedulers, and its slot: an expression, or a function of the project's own


@dataclass(frozen=True)
class Slot:
    """Where the `type` of a config section is looked up, and what a section of this kind looks like.

    A type must be *defined* in one of `packages` (its `__module__` lies inside) and be public, so a config, which may
    come from a stranger, never reaches what a module happens to import. "model.model" is one module or package,
    "model.*" is every file of a folder. A file is imported only when a name that it defines is looked up.
    """

    packages: tuple[str, ...]
    base: type | None = None  # classes must derive from it; None: no classes
    num_inputs: int | None = None  # positional arguments that the code gives to functions; None: no functions
    factories: bool = False  # functions that return a `base`, as their annotation says, stand for a class
    provided: tuple[str, ...] = ()  # arguments of a class that the code gives and a config must not
    excluded: Collection[str] = ()  # names that cannot be used; of a mapping, each with the reason
    keys: type[Section] = Section  # what the section holds beside type and args
    required: bool = False
    many: bool = False  # a list of sections
    named: bool = False  # one section, or an object of several by name
    has_state: bool = False  # of what is built, the checkpoint holds the state: a resume cannot take another
    nested: Mapping[str, str] = field(default_factory=dict)  # arguments that name types again: name -> key in SLOTS
    groups: str | None = None  # the provided argument that a config may divide by patterns: see groups.py
    is_section: bool = True  # False: only what `nested` arguments name
    description: str = ""

    def find(self, name: Any, where: str) -> Callable[..., Any]:
        """Return the class or function called `name`; raise ConfigError, with the reason, where there is none."""
        for package in self.packages:  # in order: the first that has the name is the last to be imported
            modules = list(self._modules_in(package, name))
            named = [(vars(module)[name], module.__name__) for module in modules if name in vars(module)]
            allowed = [(obj, file) for obj, file in named if self._refusal(name, obj, package) is None]
            if len({id(obj) for obj, _ in allowed}) > 1:
                files = " and ".join(file for _, file in allowed)
                raise ConfigError(f"{where}: {files} both define {name!r}; give one of them another name")
            if allowed:
                found: Callable[..., Any] = allowed[0][0]
                return found
        raise ConfigError(f"{where}: unknown type {name!r}; {self._why_not(name)}")

    def types(self) -> Iterator[tuple[str, Callable[..., Any]]]:
        """Yield (name, class or function) of everything that `find` finds."""
        for package, module in self._modules():
            for name, obj in vars(module).items():
                if self._refusal(name, obj, package) is None:
                    yield name, obj

    def parameters(self, obj: Callable[..., Any]) -> dict[str, inspect.Parameter]:
        """Return the parameters of `obj` that a config may give, by name."""
        signature = inspect.signature(obj).parameters
        named = {n: p for n, p in signature.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
        given_by_code = self._given_by_code(obj, list(named))
        return {name: parameter for name, parameter in named.items() if name not in given_by_code}

    def problems(
        self,
        obj: Callable[..., Any],
        args: Mapping[str, Any],
        where: str,
        unsure: Collection[str] = (),
        is_complete: bool = True,
    ) -> Iterator[str]:
        """Yield what is wrong with calling `obj` with `args`: unknown, missing, reserved, or of the wrong type.

        Where `obj` takes any keyword, an unknown one is only wrong if its path is in `unsure`. A missing one is only
        wrong if `args` `is_complete`.
        """
        signature = inspect.signature(obj).parameters
        takes_any = any(p.kind is p.VAR_KEYWORD for p in signature.values())
        parameters, annotations = self.parameters(obj), annotations_of(obj)
        for name, value in args.items():
            path = f"{where}.{name:.80}"
            if name == self.groups:
                yield from group_problems(partial(self.problems, obj, is_complete=False), value, path)
            elif name in self._given_by_code(obj, list(signature)):
                yield f"{path}: is given by the code and cannot be set in a config"
            elif name not in parameters and (not takes_any or path in unsure):
                hint = f"; or --set +{path}=… to pass it anyway" if takes_any else ""
                yield f"{path}: unknown argument of {obj.__name__}; {nearest(name, parameters)}{hint}"
            elif name in annotations and (value is None or name not in {LR_LAMBDA, *self.nested}):
                problem = type_problem(annotations[name], value)
                if problem:
                    yield f"{path}: {problem}"
        for name in self.missing(obj, args) if is_complete else []:
            hint = "" if inspect.isclass(obj) else "; if the code gives it, raise num_inputs in slots.py"
            yield f"{where}.{name}: missing; {obj.__name__} needs it{hint}"

    def missing(self, obj: Callable[..., Any], args: Collection[str]) -> list[str]:
        """Return the arguments that `obj` needs and `args` does not have."""
        parameters = self.parameters(obj).items()
        return [name for name, p in parameters if p.default is inspect.Parameter.empty and name not in args]

    def _modules(self, name: Any = None) -> Iterator[tuple[str, ModuleType]]:
        """Yield (package, module) wherever `name` may be defined, or with None everything; imports only these."""
        for package in self.packages:
            for module in self._modules_in(package, name):
                yield package, module

    def _modules_in(self, package: str, name: Any) -> Iterator[ModuleType]:
        if name is not None and not (isinstance(name, str) and name.isidentifier()):
            return
        if not package.endswith(".*"):
            yield import_module(package)
            return
        folder = package.removesuffix(".*")
        for path in sorted(_files_of(folder)):
            if name is None:
                with suppress(ImportError):  # a list of names can do without a broken file
                    yield import_module(f"{folder}.{path.stem}")
            elif _defines(path, name):
                yield import_module(f"{folder}.{path.stem}")

    def _given_by_code(self, obj: Callable[..., Any], names: list[str]) -> tuple[str, ...]:
        is_object = inspect.isclass(obj) or self.factories
        return self.provided if is_object else tuple(names[: self.num_inputs])

    def _why_not(self, name: Any) -> str:
        """Return why `name` cannot be used although it is there, or else the nearest name that can."""
        if isinstance(self.excluded, Mapping) and name in self.excluded:
            return str(self.excluded[name])
        for package, module in self._modules():
            if isinstance(name, str) and name in vars(module):
                refusal = self._refusal(name, vars(module)[name], package)
                if refusal and callable(vars(module)[name]):
                    return f"{module.__name__}.{name} {refusal}"
        for folder in dict.fromkeys(package.split(".")[0] for package in self.packages):
            for path in _files_of(folder) if not folder.startswith("torch") else []:
                if _defines(path, name):
                    looked_in = ", ".join(self.packages)
                    return f"{folder}/{path.name} defines it, but its slot in slots.py looks in {looked_in}"
        return nearest(str(name), dict(self.types()))

    def _refusal(self, name: str, obj: Any, package: str) -> str | None:
        """Return why `obj`, called `name` in a module of `package`, cannot be used, or None where it can."""
        defined_in = getattr(obj, "__module__", None) or ""
        if name.startswith("_"):
            return "is private"
        package = package.removesuffix(".*")
        if not f"{defined_in}.".startswith(f"{package}."):
            return f"is defined in {defined_in or 'no module'}; only what {package} itself defines can be named"
        if name in self.excluded:
            return "is excluded in slots.py"
        if inspect.isclass(obj):
            return self._class_refusal(obj)
        if not inspect.isfunction(obj):
            return "is neither a class nor a function"
        returns = annotations_of(obj).get("return")
        is_factory = inspect.isclass(returns) and self.base is not None and issubclass(returns, self.base)
        if self.factories and not is_factory:
            return f"is a function whose annotation does not say that it returns a {self.base and self.base.__name__}"
        return None if self.factories or self.num_inputs is not None else "is a function; a class is wanted"

    def _class_refusal(self, cls: Any) -> str | None:
        if self.base is None:
            return "is a class; a function is wanted"
        if not issubclass(cls, self.base):
            return f"is not a subclass of {self.base.__name__}"
        if cls is self.base or inspect.isabstract(cls):
            return (
                f"is abstract: {', '.join(sorted(getattr(cls, '__abstractmethods__', []))) or 'a subclass'} is missing"
            )
        if self.num_inputs is not None and issubclass(cls, nn.Module):
            parameters = list(inspect.signature(cls.forward).parameters.values())[1:]
            needed = [p for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
            if len(needed) > self.num_inputs:
                return f"takes {len(needed)} inputs; it gets {self.num_inputs}, as its slot in slots.py says"
        return None


def _files_of(package: str) -> list[Path]:
    """Return the Python files of a folder, its __init__.py aside: what that exports is defined in the others."""
    folder = import_module(package)
    return [
        path for root in getattr(folder, "__path__", []) for path in Path(root).glob("*.py") if path.stem != "__init__"
    ]


def _defines(path: Path, name: Any) -> bool:
    """Whether a Python file defines a class or function called `name`; nothing is imported."""
    is_name = isinstance(name, str) and name.isidentifier()
    return is_name and re.search(rf"^(class|def) {name}\b", path.read_text("utf-8"), re.MULTILINE) is not None
