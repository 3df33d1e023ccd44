"""Forks of the published template run with at most five of their lines changed, and resume to the bit after SIGKILL.

Each folder holds the files of a fork as its author would have laid them over the published template. They are laid over
this one, `port.diff` changes what has to be changed, and the fork is trained as its author would.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from faults import curves_of
from fork_server import ForkServer
from helpers import ROOT, assert_equal, newest, records_of

FORKS = sorted(path.parent for path in Path(__file__).parent.glob("*/config.json"))
MAX_CHANGED = 5


def changed_lines(fork: Path) -> int:
    """Return how many lines the fork's port changes: those it adds or removes, a changed line counted once."""
    if not (fork / "port.diff").exists():
        return 0
    lines = (fork / "port.diff").read_text().splitlines()
    added, removed = (sum(line.startswith(sign) and not line.startswith(sign * 3) for line in lines) for sign in "+-")
    return max(added, removed)


@pytest.fixture(scope="session")
def ported(empty_project: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return every fork's project directory: this template without its examples, with the fork's files laid over it."""
    parent = tmp_path_factory.mktemp("forks")
    projects = {}
    for fork in FORKS:
        project = shutil.copytree(empty_project, parent / fork.name)
        shutil.copytree(fork, project, dirs_exist_ok=True)
        if (project / "port.diff").exists():
            subprocess.run(["git", "apply", "port.diff"], cwd=project, check=True)
        projects[fork.name] = project
    return projects


def the_run(project: Path, save_dir: str) -> Path:
    """Return the only run in a save_dir."""
    (run_dir,) = (project / save_dir).glob("*/*")
    return run_dir


def train(server: ForkServer, project: Path, *args: str) -> None:
    """Run the fork's train.py to its end."""
    script = server.start(project, "train.py", *args)
    assert script.wait() == 0, script.output


@pytest.mark.parametrize("fork", FORKS, ids=lambda fork: fork.name)
def test_a_fork_is_ported_with_few_lines(fork: Path) -> None:
    assert changed_lines(fork) <= (0 if fork.name == "published" else MAX_CHANGED)


@pytest.mark.parametrize("name", [fork.name for fork in FORKS])
def test_a_fork_trains_resumes_and_shows_its_curves(
    name: str, ported: dict[str, Path], fork_server: ForkServer
) -> None:
    project = ported[name]
    train(fork_server, project, "-c", "config.json", "--set", "trainer.save_dir=whole")
    whole = the_run(project, "whole")
    part = shutil.copytree(whole, project / "part" / whole.parent.name / whole.name)
    train(fork_server, project, "-r", str(part / "checkpoint-epoch1.pth"))
    assert_same_end(whole, part)
    assert newest(whole)["position"]["global_step"] > 0
    curves = curves_of(whole)
    assert any(tag.startswith("loss") for tag in curves)
    assert curves == curves_of(part)
    for steps in ([step for step, _ in points] for points in curves.values()):
        assert steps == sorted(set(steps)), "a step stands twice"


@pytest.mark.parametrize("name", ["published", "gan", "vqa", "stocks"])
def test_a_fork_that_is_killed_in_the_middle_of_an_epoch_resumes_to_the_bit(
    name: str, ported: dict[str, Path], fork_server: ForkServer
) -> None:
    project, generator = ported[name], random.Random(name)
    args = ["-c", "config.json", "--set", "trainer.epochs=4", "--set", "trainer.save_every_steps=1"]
    train(fork_server, project, *args, "--set", "trainer.save_dir=unkilled")
    args += ["--set", "trainer.save_dir=killed"]
    num_kills = 0
    while num_kills < 2:
        saves = list((project / "killed").glob("*/*/latest.pth"))
        before = saves[0].stat().st_mtime_ns if saves else 0
        script = fork_server.start(project, "train.py", *args)
        while script.poll() is None:  # until it has saved something new, and a little longer
            saves = list((project / "killed").glob("*/*/latest.pth"))
            if saves and saves[0].stat().st_mtime_ns > before:
                time.sleep(generator.uniform(0, 0.1))
                os.kill(script.pid, signal.SIGKILL)
                break
            time.sleep(0.002)
        if script.wait() == 0:
            break
        assert script.code == -signal.SIGKILL, script.output
        num_kills += 1
        args = ["-r", str(the_run(project, "killed"))]
    assert num_kills > 0
    if script.code != 0:
        train(fork_server, project, *args)
    assert_same_end(the_run(project, "unkilled"), the_run(project, "killed"))


def assert_same_end(expected: Path, got: Path) -> None:
    """Assert that two runs ended in the same state to the bit, and logged the same epochs."""
    one, other = newest(expected), newest(got)
    for checkpoint in (one, other):
        checkpoint["rng"][0].pop("python")  # which a fork's own train.py need not seed
        checkpoint["log"] = {name: value for name, value in checkpoint["log"].items() if not name.startswith("perf/")}
    for key in one.keys() - {"logs", "config", "environment"}:
        assert_equal(one[key], other[key], key)
    assert records_of(expected) == records_of(got)


def test_every_kind_of_fork_is_here() -> None:
    kinds = {"gan", "text", "eeg", "stocks", "noisy_labels", "long_tail", "segmentation", "vqa", "published"}
    assert {fork.name for fork in FORKS} == kinds
    assert all(json.loads((fork / "config.json").read_text())["name"] for fork in FORKS)
    assert ROOT in FORKS[0].parents
