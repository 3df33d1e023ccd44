"""A new project is a copy that works; a bad target is refused before anything is written."""

from __future__ import annotations

from pathlib import Path

import pytest

import new_project
from helpers import ROOT
from new_project import create
from utils import ConfigError, exit_on_user_error

THIS_CHECKOUT = {".git", ".venv", ".venv-bench", "saved", "data"}
ENGINE = {
    *("base", "checkpoint", "logger", "parse_config", "preflight", "distributed"),
    *("speed", "sweeps", "trackers", "utils", "history", "prediction", "deploy", "tables", "images", "tests"),
}
SCAFFOLD = {
    *("train.py", "test.py", "predict.py", "export.py", "slots.py", "data_loader", "model", "trainer"),
    *("pyproject.toml", "new_project.py"),
}


@pytest.mark.parametrize("is_empty", [False, True])
def test_the_copy_has_the_engine_and_nothing_of_this_checkout(is_empty: bool, tmp_path: Path) -> None:
    path = create(tmp_path / "my-project", is_empty)
    names = {entry.name for entry in path.iterdir()}
    assert ENGINE | SCAFFOLD | {".gitignore"} <= names
    assert not names & THIS_CHECKOUT
    assert not list(path.rglob("__pycache__"))
    for room in ENGINE - {"tests"}:
        for file in (ROOT / room).glob("*.py"):
            assert (path / room / file.name).read_bytes() == file.read_bytes()
    assert (path / "tests" / "engine" / "toy.py").exists()


def test_an_empty_project_has_no_examples(tmp_path: Path) -> None:
    path = create(tmp_path / "my-project", is_empty=True)
    assert not [example for pattern in new_project.EXAMPLES for example in path.glob(pattern)]
    assert not (path / "config.json").exists()
    assert [file.name for file in (path / "data_loader").iterdir()] == ["__init__.py"]


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("there", "exists already"),
        ("link", "exists already"),
        ("no/such/parent", "there is no directory"),
        ("sp ace", "is not a project name"),
        ("-rf", "is not a project name"),
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


def test_a_copy_that_fails_leaves_nothing(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))  # to a program it is what a full disk is
    try:
        with pytest.raises(ConfigError, match=r"my-project: cannot be written: (.|\n)*File too large"):
            create(tmp_path / "my-project")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_says_what_comes_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new_project.main([str(tmp_path / "mine"), "--empty"])
    created, then = capsys.readouterr().out.splitlines()
    assert created == f"created {tmp_path / 'mine'}"
    assert then.startswith(f"next:  cd {tmp_path / 'mine'} && git init && ")
    with pytest.raises(SystemExit) as caught, exit_on_user_error():
        new_project.main([str(tmp_path)])
    assert caught.value.code == 2
    assert capsys.readouterr().err == f"{tmp_path}: exists already; name a directory that does not\n"
