"""What every test gets: a clean process; and what many share: a project without examples, and a server to run it by.

Modules that import torch are imported where they are used: the process that hands out the tests needs none of them.
"""

from __future__ import annotations

import compileall
import gc
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from fork_server import ForkServer

# Before torch is imported, here and in processes that tests start: side by side, more threads than cores are slow.
os.environ["OMP_NUM_THREADS"] = "1"

# What takes longest comes first, so that no process is left with it alone at the end; and what needs the same server
# comes together, so that few processes start one.
FIRST = ["test_tutorial", "test_empty_fork", "test_forks", "test_changes", "test_faults", "test_stops"]


def pytest_configure(config: pytest.Config) -> None:
    """Name a mark for what tests/engine/test_empty_fork.py leaves out."""
    config.addinivalue_line("markers", "e2e: whole runs, of the toy or of a project of its own")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Look for no garbage in what is imported here, which would take a third of the time of collecting the tests."""
    gc.disable()
    yield
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of FIRST in front; leave the order of the others."""
    items.sort(key=lambda item: FIRST.index(item.path.stem) if item.path.stem in FIRST else len(FIRST))


@pytest.fixture(autouse=True)
def _clean_process(monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config) -> Iterator[None]:
    """Run from the project's root, as users do, with one thread, and leave no log handler behind."""
    import torch

    from logger import close_logging

    monkeypatch.chdir(pytestconfig.rootpath)
    torch.set_num_threads(1)  # which a test may have changed
    yield
    close_logging()


@pytest.fixture(scope="session")
def fork_server() -> Iterator[ForkServer]:
    """Return a server that starts scripts of other checkouts."""
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def empty_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return this project without its examples, compiled; to be copied, not changed."""
    from new_project import create

    path = create(tmp_path_factory.mktemp("empty") / "project", is_empty=True)
    compileall.compile_dir(path, quiet=1, rx=re.compile("tests"))  # once, rather than in every copy
    return path
