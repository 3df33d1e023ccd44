"""Measure everything and write BENCHMARKS.md: make bench, or python benchmarks/run.py --help."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

PARTS = (
    "epochs",
    "one_process",
    "several_processes",
    "gpu",
    "model_size",
    "csv_scaling",
    "table_rows",
    "predict_rows",
    "image_loading",
    "checkpoint_stall",
    "startup",
)


def main() -> None:
    """Run the parts, each of which hands back a section of the document."""
    # Imported here: the contenders' processes import this file too, and want nothing but their own libraries.
    import torch

    import report

    options = parse_args()
    names = [name for name in PARTS if name in (options.only or PARTS) and (name != "gpu" or torch.cuda.is_available())]
    logging.disable()
    sections = []
    (ROOT / "saved").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / "saved", prefix="bench-", ignore_cleanup_errors=True) as out:
        options.out = Path(out)
        for name in names:
            print(f"{name} …", flush=True)
            sections.append(import_module(name).part(options))
            print(f"\n{sections[-1].text}\n", flush=True)
    text = report.document(sections, options.rounds)
    if options.only:
        print(text)
        return
    for section in sections:
        if section.bars:
            report.draw(section.bars, ROOT / "docs" / "benchmarks.png")
    (ROOT / "BENCHMARKS.md").write_text(text, encoding="utf-8")


def parse_args() -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--only",
        type=lambda text: text.split(","),
        metavar="PART,…",
        help=f"print these parts and write no file: {', '.join(PARTS)}",
    )
    parser.add_argument("--rounds", type=int, default=7, help="epochs of each contender that are counted; default 7")
    parser.add_argument("--data-dir", type=Path, default=ROOT / "data", help="where MNIST lies; default data/")
    parser.add_argument(
        "--python",
        type=Path,
        default=ROOT / ".venv" / "bin" / "python",
        help="the project's own, without the other frameworks, for start-up and CSV; default .venv/bin/python",
    )
    options = parser.parse_args()
    unknown = set(options.only or ()) - set(PARTS)
    if unknown:
        parser.error(f"--only: no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if not options.python.exists():
        parser.error(f"--python: {options.python} is not there; make bench makes it")
    options.data_dir = options.data_dir.resolve()
    options.python = options.python.absolute()  # not resolved: the link is what makes it a virtual environment
    return options


if __name__ == "__main__":
    main()
