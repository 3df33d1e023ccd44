"""Mirror a run by hand, such as one that trained without a network: python -m trackers saved/NAME/RUN wandb."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from trackers.mirror import follow_stdin, mirror

NAMES = ("wandb", "mlflow", "trackio")


def main() -> int:
    """Mirror one run to one tracker; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m trackers", description=__doc__)
    parser.add_argument("run", type=Path, help="run directory")
    parser.add_argument("tracker", choices=NAMES)
    parser.add_argument("--follow", action="store_true", help="go on until stdin is closed")
    args = parser.parse_args()
    if not (args.run / "config.json").is_file():
        parser.error(f"{args.run}: is no run directory")
    if hasattr(os, "nice"):
        os.nice(10)  # training comes first
    has_stopped = follow_stdin() if args.follow else lambda seconds: True
    said, sys.stdout = sys.stdout, sys.stderr  # a line on stdout is for the training process
    try:
        mirror(args.run, args.tracker, has_stopped)
    except Exception as error:
        text = " ".join(str(error).split())[:300] or type(error).__name__
        print(f"{text}; send it later by: python -m trackers {args.run} {args.tracker}", file=said, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
