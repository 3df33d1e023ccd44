"""What the tests share: a small real config, runs in this process, and runs from the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import test as test_script
import train as train_script
from logger import close_logging
from checkpoint.file import find_checkpoint, load_checkpoint

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _clean_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run from the project's root, as users do, with two threads, and leave no log handler behind."""
    monkeypatch.chdir(ROOT)
    torch.set_num_threads(2)
    yield
    close_logging()


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    """Return config.json, on the digits, saving under tmp_path."""
    content = json.loads((ROOT / "config.json").read_text())
    del content["$schema"]
    content["data_loader"]["args"] |= {"source": "digits"}
    content["n_gpu"] = 0
    content["trainer"] |= {"epochs": 2, "save_dir": str(tmp_path / "saved"), "save_period": 1, "log_every_steps": 7}
    return content


def train(config: dict[str, Any], *args: str) -> Path:
    """Train `config` in this process, with further command-line arguments; return the run directory."""
    save_dir = Path(config["trainer"]["save_dir"])
    save_dir.mkdir(parents=True, exist_ok=True)
    path = save_dir / "given.json"
    path.write_text(json.dumps(config))
    return run_train("-c", str(path), *args)


def run_train(*args: str) -> Path:
    """Run train.py's main in this process; return the run directory."""
    parsed = train_script.parse_args(list(args))
    train_script.main(parsed)
    return parsed.save_dir


def evaluate(*args: str) -> dict[str, float]:
    """Run test.py's main in this process; return what it printed."""
    return test_script.main(test_script.parse_args(list(args)))


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
