"""What the tests of the examples share: config.json on a few digits."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from few_digits import on_few_digits, write_few_digits
from helpers import ROOT

collect_ignore = (
    [] if hasattr(os, "fork") else ["test_faults.py", "test_csv_cache.py", "test_parquet_data.py"]
)  # fork, kill, limit processes


@pytest.fixture(scope="session")
def digits_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the files of a small MNIST (see few_digits.py)."""
    folder = tmp_path_factory.mktemp("data") / "few_digits"
    write_few_digits(folder)
    return folder


@pytest.fixture
def config(digits_dir: Path, tmp_path: Path) -> dict[str, Any]:
    """Return config.json of 2 epochs of 8 steps on a few digits, saving under tmp_path."""
    content: dict[str, Any] = json.loads((ROOT / "config.json").read_text())
    del content["$schema"]
    content["trainer"] |= {"epochs": 2, "save_dir": str(tmp_path / "saved"), "save_period": 1, "log_every_steps": 3}
    return on_few_digits(content, digits_dir)
