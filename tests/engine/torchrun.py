"""torchrun as a user starts it: its command, the processes that it starts, and how far they are."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from faults import small_config, the_run, write_config
from helpers import ROOT, run_script


def torchrun(*options: str, config: str) -> list[str]:
    """Return the command that trains the file `config` under torchrun with `options`."""
    launcher = [sys.executable, "-m", "torch.distributed.run", *options]
    return [*launcher, str(ROOT / "train.py"), "-c", config, "--resume-latest"]


def workers_of(agent: int) -> list[int]:
    """Return the ids of the processes that the torchrun `agent` has started; on Linux alone."""
    try:
        children = Path(f"/proc/{agent}/task/{agent}/children").read_text().split()
        return [int(pid) for pid in children if b"train.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def long_config(save_dir: Path, epochs: int, **changes: Any) -> dict[str, Any]:
    """Return a config of `epochs` epochs of 7 steps on the digits, whose weights change to the end."""
    config = small_config(save_dir, trainer__epochs=epochs, trainer__early_stop=0, trainer__save_period=epochs)
    del config["lr_scheduler"]
    config["trainer"] |= changes
    return config


def num_records(config: dict[str, Any]) -> int:
    """Return how many steps and epochs the runs of `config` have logged."""
    paths = Path(config["trainer"]["save_dir"]).glob("*/*/metrics.jsonl")
    return sum(path.read_bytes().count(b"\n") for path in paths)


def alone(config: dict[str, Any]) -> Path:
    """Train `config` in one process, without torchrun; return the run directory."""
    done = run_script("train.py", "-c", write_config(config))
    assert done.returncode == 0, done.stderr
    return the_run(config)
