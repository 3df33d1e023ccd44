"""ConfigParser: a config file and the command line become a checked config, and the config becomes objects."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from checkpoint import run_dir as run_dirs
from checkpoint.file import find_checkpoint
from checkpoint.run_lock import locked, refuse_if_locked
from distributed.collective import broadcast
from distributed.launch import is_main, main_first
from logger import log_to_file, setup_logging
from parse_config import command_line
from parse_config.builder import Builder, KnowsData
from parse_config.command_line import AsIf, CustomArg
from parse_config.config_file import check_size
from parse_config.layers import ConfigLayers
from parse_config.named import Slots
from parse_config.options import Options
from parse_config.problems import find_oddities, find_problems
from parse_config.schema import config_model, fill_defaults, marked, project_slots
from parse_config.slot import Slot
from parse_config.try_out import try_out
from utils.annotations import Mark
from utils.errors import ConfigError, printable, writing_to
from utils.files import write_json


class ConfigParser:
    """A checked config. Nothing is created, downloaded or put on a device before `make_run_dir`.

    `facts` are what the data says, for models, losses and metrics whose arguments have these names.
    """

    as_if: AsIf | None = None
    """With --as-if: the numbers of processes to rehearse for."""
    finds_lr = False
    """With --lr-find."""
    num_folds: int | None = None
    """With --kfold."""
    goes_on = False
    """With --resume-latest."""
    trusted_repos: tuple[str, ...] = ()
    """With --trust-repo: "owner/name" of those whose code may run. Never from a config, which may be a stranger's."""

    def __init__(
        self,
        config: dict[str, Any] | ConfigLayers,
        resume: str | Path | None = None,
        modification: Mapping[str, Any] | None = None,
        run_id: str | None = None,
        *,
        slots: Slots | None = None,
        init_from: str | Path | None = None,
        allow_inexact: bool = False,
        is_rehearsal: bool = False,
    ) -> None:
        """Apply `modification` ({"optimizer;args;lr": 0.01}), fill in defaults, check everything.

        `resume` is the checkpoint to resume from, in whose directory the run continues; `init_from` is one to take the
        weights of, for a new run. `allow_inexact` lets a run resume although its surroundings have changed. `slots` is
        that of the project's slots.py by default. Raises ConfigError with all mistakes at once.
        """
        self.slots = project_slots() if slots is None else slots
        self.resume = Path(resume) if resume else None
        self.init_from = Path(init_from) if init_from else None
        self.has_taken_weights = False  # those of `init_from`
        self.allow_inexact = allow_inexact
        self.is_rehearsal = is_rehearsal
        self._must_be_first = False  # with --resume-latest, where there was no run yet
        self.layers = config if isinstance(config, ConfigLayers) else ConfigLayers(config)
        self.config = self.layers.config  # the whole of it, defaults included
        unsure = self.layers.override_all(modification or {}, "command line")
        if problems := find_problems(self.config, self.slots, unsure):
            raise ConfigError(problems)
        self._model = config_model(self.slots)
        fill_defaults(self._model, self.config)
        self._typed = self._model.model_validate(self.config)
        self.builder = Builder(self.config, self.slots)
        try_out(self.builder)
        run_dir = run_dirs.run_dir_of(self["trainer"]["save_dir"], self["name"], run_id)
        self._save_dir = self.resume.parent if self.resume else run_dir

    @classmethod
    def from_args(
        cls,
        args: argparse.ArgumentParser,
        options: Iterable[CustomArg] = (),
        *,
        slots: Slots | None = None,
        argv: Sequence[str] | None = None,
        prefer: str | None = None,
    ) -> ConfigParser:
        """Read the command line: `args` has --config, --resume and --device; --set and `options` are added here.

        -r alone resumes the run that it names, in a directory from the checkpoint called `prefer` or else the newest;
        -r with -c starts a new run from its weights. A question, such as --print-config, is answered, and the program
        exits. Raises ConfigError, CheckpointError, RunDirError.
        """
        options, slots = list(options), project_slots() if slots is None else slots
        command_line.add_override_flags(args, options)
        setup_logging()
        cli = args.parse_args(argv)
        command_line.answer_question(cli, args, slots)
        command_line.check_flags(cli)
        is_resumed = cli.resume is not None and cli.config is None
        finds_lr, goes_on = getattr(cli, "lr_find", False), getattr(cli, "resume_latest", False)
        is_rehearsal = getattr(cli, "check", False) or finds_lr
        checkpoint = find_checkpoint(cli.resume, prefer) if cli.resume else None
        if checkpoint and is_resumed and not is_rehearsal and prefer is None and is_main():
            refuse_if_locked(checkpoint.parent)  # before any data is read
        path = run_dirs.config_file(checkpoint.parent) if checkpoint and is_resumed else Path(cli.config)
        how: dict[str, Any] = {"resume" if is_resumed else "init_from": checkpoint, "run_id": cli.run_id}
        overrides = command_line.overrides_of(cli, options)
        config = cls._from_file(path, overrides, slots=slots, is_rehearsal=is_rehearsal, **how)
        config.as_if, config.num_folds = command_line.as_if_of(cli), command_line.num_folds_of(cli)
        config.goes_on, config.finds_lr = goes_on, finds_lr
        config.allow_inexact, config.trusted_repos = getattr(cli, "allow_inexact", False), tuple(cli.trust_repo)
        if goes_on and not config.num_folds:
            config.go_on_with_newest()
        if getattr(cli, "print_config", False):
            print("\n".join(config.layers.describe()))
            raise SystemExit(0)
        return config

    @classmethod
    def _from_file(cls, path: Path, overrides: Mapping[str, Any], **how: Any) -> ConfigParser:
        layers = ConfigLayers()
        try:
            layers.add_file(path)
            config = cls(layers, modification=overrides, **how)
        except ConfigError as error:
            raise ConfigError(p if p.startswith(f"{path}:") else f"{path}: {p}" for p in error.problems) from None
        for notice in [*layers.notices, *find_oddities(config.config)]:
            config.get_logger("config").warning(printable(notice))
        return config

    def go_on_with_newest(self) -> None:
        """Resume the newest run of this config's name, where there is one; else this stays a new run.

        Raises CheckpointError where that run has checkpoints, but none is whole, and RunDirError where another process
        trains it.
        """
        run_dir = broadcast(
            run_dirs.newest_run(self._save_dir.parent)
        )  # the first process may have made a new one since
        self._must_be_first = run_dir is None
        if run_dir is not None:
            if not self.is_rehearsal and is_main():
                refuse_if_locked(run_dir)
            self.resume = find_checkpoint(run_dir)
            self._save_dir = run_dir
            saved = run_dirs.saved_config(run_dir)
            run_dirs.adopt_resolved(self.config, saved)
            self._typed = self._model.model_validate(self.config)
            args = (saved.get("data_loader") or {}).get("args", {})
            self.resolve("data_loader", args | self["data_loader"].get("args", {}))

    def init_obj(self, name: str, module: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Build what section `name` names: a class becomes an object, a function itself or a partial of it.

        A list of sections gives a list, several by name a dict, or Models; a missing section None. `args` and `kwargs`
        are what the code knows and the config cannot; a dict among them has one for each name. Types come from the
        slot, and before that from `module`, where the code gives one.
        """
        self.builder.known = {"is_new": self.resume is None, "trusted_repos": self.trusted_repos}
        with main_first():
            built = self.builder.build(name, module, *args, **kwargs)
        if resolved := getattr(built, "resolved_args", None):
            self.resolve(name, resolved)
        if isinstance(built, KnowsData):
            self.facts = {**self.facts, **built.facts()}
        return built

    def init_ftn(self, name: str, module: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Return a partial of what section `name` names, with its arguments and these; of several by name, a dict."""
        return self.builder.partial(name, module, *args, **kwargs)

    def find(self, path: str) -> Any:
        """Return the class or function that a plain key such as "trainer.type" names, by its slot; None where none."""
        section, key = path.split(".")
        name, slot = self.config[section][key], self.slots[path]
        return slot.find(name, path) if isinstance(slot, Slot) and name is not None else None

    def section(self, name: str) -> Any:
        """Return section `name` as a typed object, several by name as a dict: for `trainer`, the TrainerOptions."""
        return getattr(self._typed, name)

    def make_run_dir(self) -> None:
        """Make the directory of a new run; a resumed one has its own. Raises RunDirError, ConfigError."""
        if self.resume is None:
            check_size(self.config)
            with writing_to(self._save_dir):
                self._save_dir = run_dirs.make_new_dir(self._save_dir)

    @contextmanager
    def held_run_dir(self) -> Iterator[Callable[[], None]]:
        """Make the directory of a new run, and hold it or that of a resumed one; yield a check that it still is held.

        The first process does so for all.

        Raises RunDirError: it cannot be made, another process has it, or one that was asked for the newest run as well
        has started one meanwhile.
        """
        if not is_main():
            self._save_dir = broadcast(self._save_dir)
            yield lambda: None
            return
        with ExitStack() as stack:
            with run_dirs.first_alone(self._save_dir.parent) if self._must_be_first else nullcontext():
                self.make_run_dir()
                check_held = stack.enter_context(locked(self._save_dir))
            broadcast(self._save_dir)
            yield check_held

    def start_logging(self) -> None:
        """Write the resolved config into the run directory, and log to its info.log from now on. Raises RunDirError."""
        with writing_to(self._save_dir):
            write_json(self.config, self._save_dir / "config.json")
            log_to_file(self._save_dir / "info.log")

    def resolve(self, name: str, values: Mapping[str, Any]) -> None:
        """Record the value that keys of a plain section, or open arguments of a type, such as "auto", resolved to.

        Of several sections by name, `values` has those of each.
        """
        typed = self.section(name)
        if isinstance(typed, dict):
            for key, own in values.items():
                self.config[name][key].setdefault("args", {}).update(own)
        elif isinstance(typed, Options) and not hasattr(typed, "args"):
            self.config[name].update(values)
            for key, value in values.items():
                setattr(typed, key, value)
        else:
            self.config[name].setdefault("args", {}).update(values)

    def marked(self, mark: Mark) -> set[str]:
        """Return the paths of the keys and arguments that bear `mark`."""
        return marked(self.slots, self.config, mark)

    def stateful_sections(self) -> set[str]:
        """Return the sections whose objects have their state in the checkpoint."""
        return {key for key, slot in self.slots.items() if isinstance(slot, Slot) and slot.has_state}

    def with_defaults(self, saved: dict[str, Any]) -> dict[str, Any]:
        """Return a config that an earlier version saved, with the keys that have come since, in place."""
        fill_defaults(self._model, saved)
        return saved

    def get_logger(self, name: str, verbosity: int = 2) -> logging.Logger:
        """Return the logger `name`; `verbosity` is 0 for warnings, 1 for info, 2 for debug."""
        logger = logging.getLogger(name)
        logger.setLevel([logging.WARNING, logging.INFO, logging.DEBUG][verbosity])
        return logger

    def __getitem__(self, name: str) -> Any:
        """Return a section or value of the config."""
        return self.config[name]

    @property
    def facts(self) -> dict[str, Any]:
        """What the data says, by the name of the argument that takes it."""
        return self.builder.facts

    @facts.setter
    def facts(self, facts: dict[str, Any]) -> None:
        self.builder.facts = facts

    @property
    def save_dir(self) -> Path:
        """Where the run's checkpoints go: the run directory."""
        return self._save_dir

    @save_dir.setter
    def save_dir(self, path: Path) -> None:
        self._save_dir = path

    @property
    def log_dir(self) -> Path:
        """Where the run's TensorBoard events go: the run directory too."""
        return self._save_dir
