"""The flags of train.py beyond the config itself. Debugging flags are short for a --set."""

from __future__ import annotations

import argparse

DEBUGGING = {
    "--fast-dev-run": (
        ("trainer.limit_batches=1", "trainer.epochs=1", "trainer.log_every_steps=1"),
        "one batch of training and validation, one epoch",
    ),
    "--deterministic": (("trainer.deterministic=true",), "deterministic algorithms only"),
    "--detect-anomaly": (("trainer.detect_anomaly=true",), "name the operation that made a NaN"),
    "--profile": (("trainer.profile=true",), "write a trace of a few steps into the run directory"),
}


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say what to do with the config, and those for debugging."""
    parser.add_argument("-c", "--config", help="config file (JSON or YAML)")
    parser.add_argument("-r", "--resume", help="run directory or checkpoint to go on from")
    parser.add_argument("-d", "--device", help="auto, cpu, mps, cuda, cuda:N or N")
    parser.add_argument("--resume-latest", action="store_true", help="go on with the newest run, or start one")
    parser.add_argument("--allow-inexact", action="store_true", help="resume although it cannot be exact")

    instead = parser.add_argument_group("instead of training")
    instead.add_argument("--check", action="store_true", help="try one step, tell shapes, time and memory")
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
