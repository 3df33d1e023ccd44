"""The flags of train.py: what to do, short forms for keys of the config, and questions that need no training."""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from distributed.traffic import Link
from parse_config.layers import ConfigLayers
from parse_config.named import Slots
from parse_config.options import NAME_PATTERN
from parse_config.overrides import parse_override
from utils.errors import ConfigError
from utils.files import write_atomic

DEBUGGING = {
    "--fast-dev-run": (
        ("trainer.limit_batches=1", "trainer.epochs=1", "trainer.log_every_steps=1"),
        "one batch of training and validation, one epoch",
    ),
    "--deterministic": (("trainer.deterministic=true",), "deterministic algorithms only"),
    "--detect-anomaly": (("trainer.detect_anomaly=true",), "name the operation that made a NaN"),
    "--profile": (("trainer.profile=true",), "write a trace of a few steps into the run directory"),
}


class CustomArg(NamedTuple):
    """A command-line flag of its own for a key of the config: `target` is its path, as in "optimizer;args;lr"."""

    flags: list[str]
    type: Callable[[str], Any]
    target: str


MAX_PROCESSES, MAX_FOLDS = 4096, 1000
LINK = ("25GB/s", "20us")


class AsIf(NamedTuple):
    """What --as-if asks for: numbers of processes, and the link between them."""

    counts: list[int]
    link: Link


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say what to do with the config, and those for debugging."""
    parser.add_argument("-c", "--config", help="config file (JSON or YAML)")
    parser.add_argument("-r", "--resume", help="run directory or checkpoint to resume from")
    parser.add_argument("-d", "--device", help="auto, cpu, mps, cuda, cuda:N or N")
    parser.add_argument("--name", help="override name: the directory of the run under trainer.save_dir")
    parser.add_argument("--tag", help="override tag: a word to find the run by")
    parser.add_argument("--resume-latest", action="store_true", help="resume the newest run, or start one")
    parser.add_argument("--kfold", type=int, metavar="N", help="N runs, each validated on another Nth of the data")
    parser.add_argument("--allow-inexact", action="store_true", help="resume even where it cannot be exact")

    instead = parser.add_argument_group("instead of training")
    instead.add_argument("--check", action="store_true", help="try a few steps; print layers, shapes, time, memory")
    instead.add_argument("--as-if", metavar="N[,N...]", help="with --check: what N processes would need and take")
    instead.add_argument("--link-speed", metavar="SPEED", help=f"of what connects them; {LINK[0]} by default")
    instead.add_argument("--link-latency", metavar="TIME", help=f"of a message between them; {LINK[1]} by default")
    instead.add_argument("--lr-find", action="store_true", help="try learning rates; print and plot the losses")
    instead.add_argument("--print-config", action="store_true", help="print every key and where it is from")
    instead.add_argument("--schema", action="store_true", help="write config.schema.json for editors")
    instead.add_argument("--print-completion", choices=["bash", "zsh", "tcsh"], help="print a completion script")

    debugging = parser.add_argument_group("debugging")
    for flag, (overrides, text) in DEBUGGING.items():
        debugging.add_argument(flag, dest="set", action="append_const", const=overrides, help=text)
    for flag, key, text in (
        ("--limit-batches", "limit_batches", "so many steps and validation batches an epoch"),
        ("--overfit-batches", "overfit_batches", "train and validate on the same few batches"),
    ):
        override = f"trainer.{key}={{}}".format
        debugging.add_argument(flag, dest="set", action="append", type=override, metavar="N", help=text)


def add_override_flags(parser: argparse.ArgumentParser, options: Iterable[CustomArg]) -> None:
    """Add --set and the flags of `options`. Other flags with dest="set" are short for a --set."""
    for option in options:
        flags, kind, target = option  # the published template's own tuple has no other names in common
        parser.add_argument(*flags, type=kind, help=f"override {target.replace(';', '.')}")
    parser.add_argument(
        "--run-id", metavar="ID", type=_directory_name, help="name of a new run's directory; default: date and time"
    )
    text = "run the code of this repository on GitHub, which a HubModel names; repeatable"
    parser.add_argument("--trust-repo", action="append", metavar="OWNER/NAME", default=[], help=text)
    parser.add_argument("--set", action="append", metavar="PATH=VALUE", help="override any config key; repeatable")
    parser.set_defaults(set=[])


def overrides_of(cli: argparse.Namespace, options: Iterable[CustomArg]) -> dict[str, Any]:
    """Return the values that the command line gives, by their paths. Raises ConfigError."""
    given = {target: getattr(cli, _dest(flags)) for flags, _, target in options}
    given |= {key: getattr(cli, key, None) for key in ("device", "name", "tag")}
    overrides = {path: value for path, value in given.items() if value is not None}
    texts = [text for entry in cli.set for text in ([entry] if isinstance(entry, str) else entry)]
    return overrides | dict(parse_override(text) for text in texts)


def check_flags(cli: argparse.Namespace) -> None:
    """Raise ConfigError where there is nothing to begin from, or too much."""
    if cli.resume and getattr(cli, "resume_latest", False):
        raise ConfigError("give either -r or --resume-latest")
    if cli.resume is None and cli.config is None:
        raise ConfigError("no config: give -c config.json for a new run, or -r saved/NAME/RUN to resume one")


def as_if_of(cli: argparse.Namespace) -> AsIf | None:
    """Return what --as-if asks for, None where it is not given. Raises ConfigError."""
    asked, speed, latency = (getattr(cli, name, None) for name in ("as_if", "link_speed", "link_latency"))
    if asked is None:
        if speed or latency:
            raise ConfigError("--link-speed and --link-latency go with --as-if")
        return None
    if not cli.check:
        raise ConfigError("--as-if goes with --check: it trains nothing")
    numbers = asked.split(",")
    if not all(re.fullmatch("[1-9][0-9]{0,3}", text) and int(text) <= MAX_PROCESSES for text in numbers):
        raise ConfigError(f"--as-if: {asked!r}; give a number of processes from 1 to {MAX_PROCESSES}, or 2,4,8")
    return AsIf([int(text) for text in numbers], Link.parse(speed or LINK[0], latency or LINK[1]))


def num_folds_of(cli: argparse.Namespace) -> int | None:
    """Return what --kfold asks for. Raises ConfigError."""
    asked: int | None = getattr(cli, "kfold", None)
    if asked is None:
        return None
    others = [flag for flag in ("check", "lr_find", "resume") if getattr(cli, flag, None)]
    if others or int(os.environ.get("WORLD_SIZE") or 1) > 1:
        raise ConfigError(f"--kfold: not with {others[0].replace('_', '-') if others else 'several processes'}")
    if not 2 <= asked <= MAX_FOLDS:
        raise ConfigError(f"--kfold: {asked}; give 2 to {MAX_FOLDS} folds")
    return asked


def answer_question(cli: argparse.Namespace, parser: argparse.ArgumentParser, slots: Slots) -> None:
    """Write the JSON schema, or print a completion script, where the command line asks for one, and exit."""
    shell = getattr(cli, "print_completion", None)
    if not getattr(cli, "schema", False) and not shell:
        return
    from parse_config.completion import completion_script  # these import what training does not
    from parse_config.reference import dotted_paths, json_schema

    if shell:
        layers = ConfigLayers()
        layers.add_file(Path(cli.config or "config.json"))
        print(completion_script(parser, shell, dotted_paths(slots, layers.config)))
    else:
        schema = json.dumps(json_schema(slots))  # without indentation: an editor reads it, nobody else
        write_atomic("config.schema.json", f"{schema}\n".encode())
    raise SystemExit(0)


def _directory_name(text: str) -> str:
    if not re.fullmatch(NAME_PATTERN, text):
        raise argparse.ArgumentTypeError(f"{text!r}: use letters, digits, '.', '_' and '-', at most 64")
    return text


def _dest(flags: list[str]) -> str:
    """Return the name under which argparse keeps the option."""
    long = next((flag for flag in flags if flag.startswith("--")), flags[0])
    return long.lstrip("-").replace("-", "_")
