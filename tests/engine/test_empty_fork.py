"""The engine's tests need no example: they pass in a project that was made without any."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fork_server import ForkServer


@pytest.mark.e2e
def test_the_engines_tests_pass_in_an_empty_project(
    empty_project: Path, fork_server: ForkServer, tmp_path: Path
) -> None:
    """All are collected; those that know most of a project are run, the ones that take long left out, this one too."""
    project = shutil.copytree(empty_project, tmp_path / "my-project")
    some = [
        "--assert=plain",
        "-m",
        "not slow and not e2e",
        "-k",
        "test_parse_config or test_house or test_new_project or test_slot",
    ]
    pytest = fork_server.start(project, "-m", "pytest", "tests/engine", *some, "-n", "0")
    assert pytest.wait() == 0, pytest.output[-5000:]
