"""Runs of train.py and test.py in this process, and the curves that they leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import test as test_script
import train as train_script
from helpers import write_given


def curves(run_dir: Path) -> dict[str, list[tuple[int, float]]]:
    """Return every TensorBoard curve that does not depend on the clock, as (step, value); none is hidden."""
    events = EventAccumulator(str(run_dir), {"scalars": 0}, purge_orphaned_data=False).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if "perf/" not in tag]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


def train(config: dict[str, Any], *args: str) -> Path:
    """Train `config` in this process, with further command-line arguments; return the run directory."""
    return run_train("-c", write_given(config), *args)


def run_train(*args: str) -> Path:
    """Run train.py's main in this process; return the run directory."""
    parsed = train_script.parse_args(list(args))
    train_script.main(parsed)
    return parsed.save_dir


def evaluate(*args: str) -> dict[str, float]:
    """Run test.py's main in this process; return what it printed."""
    return test_script.main(*test_script.parse_args(list(args)))
