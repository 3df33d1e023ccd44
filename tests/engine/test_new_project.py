"""A new project is a copy that works; a bad target is refused before anything is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers import ROOT, run_script
from new_project import create
from utils import ConfigError


def test_the_copy_trains_and_has_nothing_of_this_checkout(tmp_path: Path) -> None:
    path = create(tmp_path / "my-project")
    names = {entry.name for entry in path.iterdir()}
    assert {"train.py", "Makefile", "tests", "base", ".gitignore"} <= names
    assert not names & {".git", ".venv", ".venv-bench", "saved", "data"}

    args = ["--set", "data_loader.args.source=digits", "--set", "trainer.epochs=1"]
    result = run_script("train.py", "-c", "config.json", *args, cwd=path)
    assert result.returncode == 0, result.stderr
    (run_dir,) = (path / "saved" / "Mnist_LeNet").iterdir()
    assert json.loads((run_dir / "config.json").read_text())["trainer"]["epochs"] == 1


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("there", "exists already"),
        ("link", "exists already"),
        ("no/such/parent", "there is no directory"),
        ("sp ace", "is no project name"),
        ("-rf", "is no project name"),
        (str(ROOT / "inside"), "inside this project"),
    ],
)
def test_a_bad_target_is_refused(tmp_path: Path, target: str, reason: str) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match=reason):
        create(tmp_path / target)
    assert sorted(tmp_path.rglob("*")) == before
    assert not (ROOT / "inside").exists()


def test_the_command_line_tells_a_mistake_in_one_line(tmp_path: Path) -> None:
    result = run_script("new_project.py", str(tmp_path))
    assert result.returncode == 2
    assert result.stderr == f"{tmp_path}: exists already; name a directory that does not\n"
