"""The engine's tests need no example: they pass in a project that was made without any."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from new_project import create


@pytest.mark.e2e
def test_the_engines_tests_pass_in_an_empty_project(tmp_path: Path) -> None:
    """All are collected; those that know most of a project are run, the ones that take long left out, this one too."""
    path = create(tmp_path / "my-project", is_empty=True)
    some = ["-m", "not slow and not e2e", "-k", "test_parse_config or test_house or test_new_project or test_slot"]
    command = [sys.executable, "-m", "pytest", "tests/engine", *some, "-n", "0"]
    env = os.environ | {"PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "1"}
    env.pop("PYTEST_ADDOPTS", None)
    done = subprocess.run(command, cwd=path, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-5000:]
