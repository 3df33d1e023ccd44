"""The examples' own fixture: config.json on the digits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from helpers import ROOT


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    """Return config.json, on the digits, saving under tmp_path."""
    content: dict[str, Any] = json.loads((ROOT / "config.json").read_text())
    del content["$schema"]
    content["data_loader"]["args"] |= {"source": "digits"}
    content["n_gpu"] = 0
    content["trainer"] |= {"epochs": 2, "save_dir": str(tmp_path / "saved"), "save_period": 1, "log_every_steps": 7}
    return content
