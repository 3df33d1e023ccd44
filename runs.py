#!/usr/bin/env python3
"""List, compare, report and prune runs: python runs.py list."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from history.compare import comparison
from history.find import all_runs, find_run
from history.prune import Deletion, checkpoints_to_delete, delete, runs_to_delete
from history.report import write_report
from history.run import Broken
from history.table import filter_runs, run_records, runs_table, sort_runs
from history.text import HistoryError, printable, size_text, table_text


def show_list(args: argparse.Namespace) -> None:
    """Print the runs as a table or as JSON."""
    runs, broken = all_runs(args.saved)
    for condition in args.filter:
        runs = filter_runs(runs, condition)
    if args.sort:
        runs = sort_runs(runs, args.sort)
    if args.reverse:
        runs = runs[::-1]
    if args.json:
        unreadable = [{"path": str(item.path), "reason": item.reason} for item in broken]
        print(json.dumps({"runs": run_records(runs), "broken": unreadable}, indent=4))
        return
    print(runs_table(runs, _width()) if runs else f"no runs in {args.saved}")
    _warn_of(broken)


def show_comparison(args: argparse.Namespace) -> None:
    """Print runs side by side; with --html write a page of them too."""
    runs = [find_run(text, args.saved) for text in args.runs]
    print(comparison(runs, _width()))
    if args.html:
        print(f"\nwrote {write_report(runs, args.html)}")


def report(args: argparse.Namespace) -> None:
    """Write a page of one run or several."""
    runs = [find_run(text, args.saved) for text in args.runs]
    folder = runs[0].path if len(runs) == 1 else args.saved
    print(f"wrote {write_report(runs, args.output or folder / 'report.html')}")


def prune(args: argparse.Namespace) -> None:
    """Say which runs and checkpoints may go; with --yes delete them."""
    if args.keep_best is None and args.older_than is None and not args.checkpoints:
        raise HistoryError("say what may go: --keep-best K, --older-than DAYS or --checkpoints", exit_code=2)
    runs, broken = all_runs(args.saved)
    deletions = []
    if args.keep_best is not None or args.older_than is not None:
        deletions = runs_to_delete(runs, 1 if args.keep_best is None else args.keep_best, args.older_than)
    if args.checkpoints:
        gone = {item.run.path for item in deletions}
        deletions += checkpoints_to_delete([run for run in runs if run.path not in gone])
    rows = [[f"{item.run.path}{'/*.pth' * bool(item.files)}", size_text(item.size), item.reason] for item in deletions]
    print(table_text(("DELETE", "SIZE", "WHY"), rows) if rows else f"nothing to delete in {args.saved}")
    _warn_of(broken)
    if args.yes:
        _delete_all(deletions, args.saved)
    elif rows:
        total = size_text(sum(item.size for item in deletions))
        print(f"{total} in all; nothing is deleted yet: add --yes")


def _delete_all(deletions: list[Deletion], root: Path) -> None:
    freed = 0
    for item in deletions:
        size = item.size
        try:
            delete(item, root)
            freed += size
        except HistoryError as error:
            print(error, file=sys.stderr)
    print(f"deleted {size_text(freed)}")


def _warn_of(broken: list[Broken]) -> None:
    """Name on standard error what lies in a run's place but cannot be read as one."""
    if broken:
        print(f"\n{len(broken)} cannot be read:", file=sys.stderr)
        for item in broken:
            print(f"  {printable(item.path, 500)}: {item.reason}", file=sys.stderr)


def _width() -> int | None:
    """Return how wide the terminal is; None where the output goes elsewhere, and is not cut."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return what the command line asks for; `do` is the function that does it."""
    parser = argparse.ArgumentParser(prog="runs.py", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    saved: dict[str, Any] = {"type": Path, "default": Path("saved"), "help": "where the runs are; default: saved"}

    listing = commands.add_parser("list", help="a table of the runs, newest first", allow_abbrev=False)
    listing.add_argument("saved", nargs="?", **saved)
    listing.add_argument("--sort", metavar="KEY", help="by a column, a key of the config or a test metric")
    listing.add_argument("--reverse", action="store_true", help="in the opposite order")
    listing.add_argument("--filter", metavar="KEY=VALUE", action="append", default=[], help="also !=, <, >, <=, >=")
    listing.add_argument("--json", action="store_true", help="everything that is known, as JSON")
    listing.set_defaults(do=show_list)

    comparing = commands.add_parser("compare", help="configs, metrics and curves of runs", allow_abbrev=False)
    comparing.add_argument("runs", nargs="+", metavar="RUN", help="a path, a run id or a name")
    comparing.add_argument("--html", metavar="FILE", help="write a page with the curves over each other too")
    comparing.add_argument("--saved", **saved)
    comparing.set_defaults(do=show_comparison)

    reporting = commands.add_parser("report", help="a page of one run or several", allow_abbrev=False)
    reporting.add_argument("runs", nargs="+", metavar="RUN", help="a path, a run id or a name")
    reporting.add_argument(
        "-o", "--output", metavar="FILE", help="default: report.html in the run directory, of several runs in saved"
    )
    reporting.add_argument("--saved", **saved)
    reporting.set_defaults(do=report)

    pruning = commands.add_parser("prune", help="delete runs; only says which, without --yes", allow_abbrev=False)
    pruning.add_argument("saved", nargs="?", **saved)
    pruning.add_argument("--keep-best", type=_count, metavar="K", help="keep the K best runs of each name; default: 1")
    pruning.add_argument("--older-than", type=_count, metavar="DAYS", help="delete only what is older")
    pruning.add_argument("--checkpoints", action="store_true", help="of runs that stay, keep best and latest alone")
    pruning.add_argument("--yes", action="store_true", help="delete it")
    pruning.set_defaults(do=prune)
    return parser.parse_args(argv)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) > 1_000_000:
        raise argparse.ArgumentTypeError(f"{text!r}; give a number from 0 to 1,000,000")
    return int(text)


def main(argv: list[str] | None = None) -> int:
    """Do what the command line asks for; return the exit code."""
    args = parse_args(argv)
    try:
        args.do(args)
    except HistoryError as error:
        print(f"{error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if hasattr(signal, "SIGPIPE"):  # Windows has none
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it, as it ends other tools
    sys.exit(main())
