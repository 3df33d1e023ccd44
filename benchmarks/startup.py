"""Time from launching train.py until its first training step is done, against the imports that any script needs."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import time
from pathlib import Path

from report import Section, Target, ratio, table

ROOT = Path(__file__).resolve().parent.parent
IMPORTS = "import torch, torchvision, torchmetrics"
# train.py as it is, but its process ends right after the first step.
FIRST_STEP = """
import os, runpy
from trainer import Trainer

train_step = Trainer._train_step

def only_the_first(self, *args):
    train_step(self, *args)
    os._exit(0)

Trainer._train_step = only_the_first
runpy.run_path("train.py", run_name="__main__")
raise SystemExit("no step was made")
"""


def part(options: argparse.Namespace) -> Section:
    """Launch both in turns."""
    settings = [f"data_loader.args.data_dir={options.data_dir}", "data_loader.args.source=mnist", "n_gpu=0"]
    settings += [f"trainer.save_dir={options.out}"]
    train = ["-c", "config.json", *(arg for item in settings for arg in ("--set", item))]
    seconds: dict[str, list[float]] = {"imports": [], "training": []}
    for _ in range(options.rounds + 1):
        seconds["imports"].append(_launch(options.python, IMPORTS))
        seconds["training"].append(_launch(options.python, FIRST_STEP, *train))
    imports, training = seconds["imports"][1:], seconds["training"][1:]  # the first warms the disk cache
    rows = [[f"`{IMPORTS}`", f"{statistics.median(imports):.2f}"]]
    rows += [["`train.py -c config.json`, until its first training step is done", f"{statistics.median(training):.2f}"]]
    text = "Both launched in turns with the project's own environment, which has none of the other frameworks."
    target = Target("start-up until the first step / the bare imports", ratio(training, imports), 1.30)
    return Section("Start-up", f"{text}\n\n{table(['', 'median, s'], rows)}", [target])


def _launch(python: Path, code: str, *args: str) -> float:
    """Return the seconds that a Python process takes from its launch to its end."""
    started = time.perf_counter()
    subprocess.run([python, "-c", code, *args], cwd=ROOT, check=True, capture_output=True)
    return time.perf_counter() - started
