#!/usr/bin/env python3
"""Look for the best values of some keys of a config: python sweep.py -c config.json --space space.json -n 50."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports ends without a traceback

from parse_config import ConfigParser
from parse_config.named import Slots
from sweeps.report import write_report
from sweeps.study import PRUNERS, SAMPLERS
from sweeps.sweep import Sweep
from utils import ConfigError, exit_on_user_error

TRAIN = Path(__file__).resolve().with_name("train.py")


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line, without what `ConfigParser.from_args` adds."""
    parser = argparse.ArgumentParser(prog="sweep.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("-c", "--config", help="the config to vary")
    parser.add_argument("--space", metavar="FILE", help="which keys vary, and over what (JSON or YAML)")
    parser.add_argument(
        "-n", "--num-trials", type=_count, metavar="N", help="trials of the whole sweep, in all processes"
    )
    parser.add_argument("--sampler", choices=SAMPLERS, default="tpe", help="how points are drawn; default: tpe")
    parser.add_argument(
        "--pruner", choices=PRUNERS, default="none", help="how bad trials are ended early; default: none"
    )
    parser.add_argument(
        "--seeds", type=_count, default=1, metavar="N", help="train each point with N seeds; default: 1"
    )
    parser.add_argument(
        "--name",
        dest="sweep_name",
        help="name of the sweep, which is saved in save_dir/CONFIG-NAME; default: the space file's name",
    )
    parser.add_argument("--report", action="store_true", help="train nothing; write report.html of the trials so far")
    parser.add_argument("-d", "--device", help="auto, cpu, mps, cuda, cuda:N or N")
    parser.set_defaults(resume=None)
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text!r}; give a number from 1 to 1,000,000")
    return int(text)


def main(argv: Sequence[str] | None = None, slots: Slots | None = None, **how: Any) -> None:
    """Take part in the sweep that the command line names until it is done, or report on it. Raises UserErrors.

    `how` may say how runs are started (see sweeps/trial.py).
    """
    parser = make_parser()
    config = ConfigParser.from_args(parser, slots=slots, argv=argv)
    cli = parser.parse_args(argv)
    if cli.space is None:
        raise ConfigError("--space: missing; give the file that says which keys vary")
    sweep = Sweep(TRAIN, config, cli, **how)
    if cli.report:
        print(f"wrote {write_report(sweep.directory, sweep.study, sweep.plan.space, sweep.metric)}")
    else:
        sweep.run()


if __name__ == "__main__":
    with exit_on_user_error():
        main()
