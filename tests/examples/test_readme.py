"""What README.md shows is what the project does."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from textwrap import dedent

import pytest

from example_runs import run_train
from helpers import ROOT
from trainer import Trainer
from utils import ConfigError

README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8") if README.exists() else ""
pytestmark = pytest.mark.skipif(not TEXT.startswith("# PyTorch template"), reason="README.md is another project's")


def block_with(text: str) -> str:
    """Return the code block that has `text` in it; skip the test where there is none."""
    blocks = re.findall(r"^```\w*\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    found = [block for block in blocks if text in block]
    if not found:
        pytest.skip(f"README.md has no code block with {text!r}")
    (block,) = found
    return str(block)


def test_it_is_short() -> None:
    assert len(TEXT.splitlines()) <= 120


def test_its_training_step_is_the_source() -> None:
    assert dedent(block_with("def _train_step")) == dedent(inspect.getsource(Trainer._train_step))


def test_the_mistakes_that_it_shows_are_reported_in_these_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = block_with("mine.json: arch.type").splitlines()
    config = json.loads((ROOT / "config.json").read_text())
    config["arch"]["type"] = "MnistModle"
    config["optimizer"]["args"] = {"lrr": 0.001}
    config["trainer"]["monitor"] = "min val_los"
    (tmp_path / "mine.json").write_text(json.dumps(config))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        run_train("-c", "mine.json")
    assert shown[0] == "$ python train.py -c mine.json"
    assert caught.value.problems == shown[1:]


def test_the_files_that_it_links_to_are_there() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", TEXT) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link.partition("#")[0]).exists()] == []
