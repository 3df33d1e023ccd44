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
    """Those that take long are left out, this one among them, and those of which there are very many."""
    path = create(tmp_path / "my-project", is_empty=True)
    some = ["-m", "not slow and not e2e", "-k", "not mutant and not hostile and not worker"]
    command = [sys.executable, "-m", "pytest", "tests/engine", *some, "-n", "0"]
    env = os.environ | {"PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "1"}
    env.pop("PYTEST_ADDOPTS", None)
    done = subprocess.run(command, cwd=path, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-5000:]
