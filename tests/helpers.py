"""What the tests share: runs in this process and from the command line, and what they left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from checkpoint.file import find_checkpoint, load_checkpoint
from utils.device import peak_memory

ROOT = Path(__file__).resolve().parent.parent
CPU_SECONDS, MEMORY = 3, 200 << 20


@contextmanager
def limited() -> Iterator[None]:
    """Let what is inside take 3 seconds of the processor, a minute in all, and 200 MB of memory; no more."""

    def stop(*_: object) -> None:
        raise AssertionError("takes too long")

    before = peak_memory(torch.device("cpu")) or 0
    signal.signal(signal.SIGVTALRM, stop)
    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_SECONDS)
    signal.setitimer(signal.ITIMER_REAL, 60)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
    assert (peak_memory(torch.device("cpu")) or 0) - before < MEMORY


def write_given(config: dict[str, Any]) -> str:
    """Write `config` into its save_dir; return the path."""
    path = Path(config["trainer"]["save_dir"]) / "given.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(config))
    return str(path)


def run_script(script: str, *args: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run a script of the project as a user does, on the CPU, without network."""
    env = os.environ | {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    command = [sys.executable, str(cwd / script), *args]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300, check=False)


def newest(run_dir: Path) -> dict[str, Any]:
    """Return the content of the newest checkpoint of a run."""
    return load_checkpoint(find_checkpoint(run_dir))


def epochs_of(run_dir: Path) -> list[dict[str, Any]]:
    """Return the epoch records of a run without what depends on the clock."""
    return [record for record in records_of(run_dir) if record["kind"] == "epoch"]


def records_of(run_dir: Path) -> list[dict[str, Any]]:
    """Return all records of metrics.jsonl without what depends on the clock."""
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if not k.startswith("perf/")} for line in lines]


def status_of(run_dir: Path) -> dict[str, Any]:
    """Return status.json."""
    content: dict[str, Any] = json.loads((run_dir / "status.json").read_text())
    return content


def assert_equal(one: Any, other: Any, where: str = "") -> None:
    """Assert that two states are equal to the bit; NaN equals NaN."""
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_equal(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for index, (a, b) in enumerate(zip(one, other)):
            assert_equal(a, b, f"{where}[{index}]")
    elif isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype, where
        assert torch.equal(one.nan_to_num(), other.nan_to_num()), where
    else:
        assert one == other or (one != one and other != other), f"{where}: {one} != {other}"
