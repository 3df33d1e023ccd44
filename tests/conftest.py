"""What every test gets: a clean process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from helpers import ROOT
from logger import close_logging


def pytest_configure(config: pytest.Config) -> None:
    """Name a mark for what tests/engine/test_empty_fork.py leaves out."""
    config.addinivalue_line("markers", "e2e: whole runs, of the toy or of a project of its own")


torch.set_num_threads(1)  # for fixtures of a session too, which come before those of a test


@pytest.fixture(autouse=True)
def _clean_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run from the project's root, as users do, with one thread, and leave no log handler behind."""
    monkeypatch.chdir(ROOT)
    torch.set_num_threads(1)  # several test processes run side by side, and more threads than cores make all slow
    yield
    close_logging()
