"""ConfigParser: a config file and the command line become a checked config, and the config becomes objects."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

from logger import log_to_file, setup_logging
from utils import ConfigError, write_json, writing_to
from utils.builder import Builder
from utils.checkpoint import find_checkpoint
from utils.config_check import find_problems
from utils.config_file import read_config
from utils.config_layers import ConfigLayers
from utils.config_schema import NESTED, RunConfig
from utils.overrides import parse_override
from utils.runs import adopt_resolved, make_new_dir, newest_run
from utils.slot import Slot


class CustomArg(NamedTuple):
    """A command-line flag of its own for a key of the config: `target` is its path, as in "optimizer;args;lr"."""

    flags: list[str]
    type: Callable[[str], Any]
    target: str


class ConfigParser:
    """A checked config. Nothing is created, downloaded or put on a device before `make_run_dir`."""

    def __init__(
        self,
        config: dict[str, Any] | ConfigLayers,
        resume: str | Path | None = None,
        modification: Mapping[str, Any] | None = None,
        run_id: str | None = None,
        *,
        slots: Mapping[str, Slot],
        init_from: str | Path | None = None,
        allow_inexact: bool = False,
    ) -> None:
        """Apply `modification` ({"optimizer;args;lr": 0.01}), fill in defaults, check everything.

        `resume` is the checkpoint to go on from, in whose directory the run goes on; `init_from` is one to take the
        weights of, for a new run. `allow_inexact` lets a run go on although its surroundings have changed.
        Raises ConfigError with all mistakes at once.
        """
        self.slots = slots
        self.resume = Path(resume) if resume else None
        self.init_from = Path(init_from) if init_from else None
        self.allow_inexact = allow_inexact
        self.layers = config if isinstance(config, ConfigLayers) else ConfigLayers(config)
        unsure = self.layers.override_all(modification or {}, "command line")
        problems = find_problems(self.config, slots, unsure)
        if problems:
            raise ConfigError(problems)
        self._fill_defaults()
        self.builder = Builder(self.config, slots)
        self.builder.try_out()
        experiment = Path(self["trainer"]["save_dir"]) / self["name"]
        if experiment.is_symlink():
            raise ConfigError(f"name: {experiment} is a symbolic link; runs stay inside trainer.save_dir")
        run_dir = experiment / (run_id or f"{datetime.now():%Y%m%d_%H%M%S}")
        self._save_dir = self.resume.parent if self.resume else run_dir

    @classmethod
    def from_args(
        cls,
        args: argparse.ArgumentParser,
        options: Iterable[CustomArg] = (),
        *,
        slots: Mapping[str, Slot],
        argv: Sequence[str] | None = None,
        prefer: str | None = None,
    ) -> ConfigParser:
        """Read the command line: `args` has --config, --resume and --device; --set and `options` are added here.

        -r alone goes on with the run it names, in a directory from the checkpoint called `prefer` or else the newest;
        -r with -c starts a new run from its weights. Raises ConfigError, CheckpointError.
        """
        options = list(options)
        add_override_flags(args, options)
        cli = args.parse_args(argv)
        setup_logging()
        overrides = {option.target: getattr(cli, _dest(option)) for option in options} | {"device": cli.device}
        overrides = {path: value for path, value in overrides.items() if value is not None}
        overrides |= dict(
            parse_override(text) for given in cli.set for text in ([given] if isinstance(given, str) else given)
        )
        checkpoint = find_checkpoint(cli.resume, prefer) if cli.resume else None
        if cli.resume and getattr(cli, "resume_latest", False):
            raise ConfigError("give either -r or --resume-latest")
        if checkpoint is None and cli.config is None:
            raise ConfigError("no config: give -c config.json for a new run, or -r saved/NAME/RUN to go on with one")
        path = checkpoint.parent / "config.json" if checkpoint and not cli.config else Path(cli.config)
        how: dict[str, Any] = {"init_from": checkpoint} if cli.config else {"resume": checkpoint}
        layers = ConfigLayers()
        try:
            layers.add_file(path)
            config = cls(layers, modification=overrides, slots=slots, **how)
        except ConfigError as error:
            raise ConfigError(p if p.startswith(f"{path}:") else f"{path}: {p}" for p in error.problems) from None
        for notice in layers.notices:
            config.get_logger("config").warning(notice)
        config.allow_inexact = getattr(cli, "allow_inexact", False)
        if getattr(cli, "resume_latest", False):
            config.go_on_with_newest()
        return config

    def go_on_with_newest(self) -> None:
        """Resume the newest run of this config's name, where there is one; else this stays a new run.

        Raises CheckpointError where that run has checkpoints, but none is whole.
        """
        run_dir = newest_run(self._save_dir.parent)
        if run_dir is not None:
            self.resume = find_checkpoint(run_dir)
            self._save_dir = run_dir
            saved = read_config(run_dir / "config.json")
            adopt_resolved(self.config, saved)
            self.resolve("data_loader", saved["data_loader"].get("args", {}) | self["data_loader"].get("args", {}))

    def init_obj(self, name: str, module: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Build what section `name` names: a class becomes an object, a function itself or a partial of it.

        A list of sections gives a list, a missing section None. `args` and `kwargs` are what the code knows and the
        config cannot. `module` is accepted for the published template's sake; the slot says where types come from.
        """
        return self.builder.build(name, *args, **kwargs)

    def init_ftn(self, name: str, module: Any = None, *args: Any, **kwargs: Any) -> partial[Any]:
        """Return a partial of what section `name` names, with its arguments and these."""
        return self.builder.partial(name, *args, **kwargs)

    def make_run_dir(self) -> None:
        """Make the directory of a new run; a resumed one has its own. Raises RunDirError."""
        if self.resume is None:
            with writing_to(self._save_dir):
                self._save_dir = make_new_dir(self._save_dir)

    def start_logging(self) -> None:
        """Write the resolved config into the run directory, and log to its info.log from now on. Raises RunDirError."""
        with writing_to(self._save_dir):
            write_json(self.config, self._save_dir / "config.json")
            log_to_file(self._save_dir / "info.log")

    def resolve(self, name: str, args: Mapping[str, Any]) -> None:
        """Record what open arguments of section `name`, such as "auto", came to."""
        self.config[name].setdefault("args", {}).update(args)

    def get_logger(self, name: str, verbosity: int = 2) -> logging.Logger:
        """Return the logger `name`; `verbosity` is 0 for warnings, 1 for info, 2 for debug."""
        logger = logging.getLogger(name)
        logger.setLevel([logging.WARNING, logging.INFO, logging.DEBUG][verbosity])
        return logger

    def __getitem__(self, name: str) -> Any:
        """Return a section or value of the config."""
        return self.config[name]

    @property
    def config(self) -> dict[str, Any]:
        """The whole config, defaults included."""
        return self.layers.config

    @property
    def save_dir(self) -> Path:
        """Where the run's checkpoints go: the run directory."""
        return self._save_dir

    @property
    def log_dir(self) -> Path:
        """Where the run's TensorBoard events go: the run directory too."""
        return self._save_dir

    def _fill_defaults(self) -> None:
        schemas: dict[str, type[BaseModel]] = {"": RunConfig, **NESTED}
        for path, schema in schemas.items():
            section: Any = self.config
            for key in path.split(".") if path else []:
                section = section[key]
            for key, field in schema.model_fields.items() if section is not None else []:
                if not field.is_required():
                    section.setdefault(key, deepcopy(field.default))


def add_override_flags(parser: argparse.ArgumentParser, options: Iterable[CustomArg]) -> None:
    """Add --set and the flags of `options`. Other flags with dest="set" are short for a --set."""
    for option in options:
        parser.add_argument(*option.flags, type=option.type, help=f"override {option.target.replace(';', '.')}")
    parser.add_argument("--set", action="append", metavar="PATH=VALUE", help="override any config key; repeatable")
    parser.set_defaults(set=[])


def _dest(option: CustomArg) -> str:
    """Return the name under which argparse keeps the option."""
    long = next((flag for flag in option.flags if flag.startswith("--")), option.flags[0])
    return long.lstrip("-").replace("-", "_")
