"""What a run records of its code, its processes and its progress, and that none of it can fail a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import checkpoint.git
from checkpoint.git import MAX_DIFF_BYTES, git_diff, git_state
from checkpoint.records import record_process, record_test
from checkpoint.run_status import progress, write_status
from helpers import status_of
from toy_runs import run, small_config, train


def git(project: Path, *args: str) -> str:
    """Run git in `project` as somebody."""
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "init.defaultBranch=main", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *who, "-C", str(project), *args], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a git work tree with one commit."""
    path = tmp_path / "project"
    path.mkdir()
    git(path, "init", "-q")
    (path / "model.py").write_text("one = 1\n")
    git(path, "add", ".")
    git(path, "commit", "-qm", "First")
    return path


def test_git_says_commit_branch_and_changes(project: Path) -> None:
    commit = git(project, "rev-parse", "HEAD")
    clean = {"commit": commit, "branch": "main", "is_dirty": False, "untracked": []}
    assert git_state(project) == clean
    assert git_diff(project) == b""
    (project / "new.py").write_text("")
    assert git_state(project) == clean | {"is_dirty": True, "untracked": ["new.py"]}
    (project / "model.py").write_text("one = 2\n")
    assert b"-one = 1\n+one = 2\n" in git_diff(project)
    git(project, "checkout", "-q", "--detach")
    assert (git_state(project) or {})["branch"] is None


def test_a_long_diff_is_cut(project: Path) -> None:
    (project / "model.py").write_text("x" * 2 * MAX_DIFF_BYTES)
    assert MAX_DIFF_BYTES < len(git_diff(project)) < MAX_DIFF_BYTES + 100


def test_only_the_projects_own_folder_counts(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = project / "inner"
    inner.mkdir()
    (project / "model.py").write_text("one = 2\n")
    assert (git_state(inner) or {})["is_dirty"] is False
    assert git_diff(inner) == b""
    monkeypatch.setenv("GIT_DIR", str(project / "elsewhere"))  # as within a hook
    assert git_state(project) is not None


def test_where_git_cannot_say_nothing_is_said(tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert git_state(tmp_path) is None
    empty = tmp_path / "empty"
    empty.mkdir()
    git(empty, "init", "-q")
    assert git_state(empty) is None
    head = project / ".git" / "HEAD"
    head.write_bytes(b"\xff\0")
    assert (git_state(project), git_diff(project)) == (None, b"")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(project) is None


@pytest.mark.skipif(os.name == "nt", reason="a shell script as git")
def test_a_git_that_hangs_is_not_waited_for(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "git").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(checkpoint.git, "TIMEOUT_S", 0.1)
    assert git_state(project) is None


def test_a_resume_adds_its_process(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = iter([git_state(project), git_state(project)])
    monkeypatch.setattr("checkpoint.records.git_state", lambda: next(states))
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    record_process(run_dir, {"device": "cpu"}, None)
    first = json.loads((run_dir / "environment.json").read_text())["processes"]
    record_process(run_dir, {"device": "cuda"}, run_dir / "latest.pth")
    both = json.loads((run_dir / "environment.json").read_text())["processes"]
    assert both[:1] == first
    assert [(process["device"], process["resumed"]) for process in both] == [("cpu", None), ("cuda", "latest.pth")]
    assert both[0]["argv"] == sys.argv
    assert both[0]["git"]["commit"] == git(project, "rev-parse", "HEAD")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"processes": 3}', "[" * 100_000])
def test_a_malformed_environment_file_is_replaced(content: str, tmp_path: Path) -> None:
    (tmp_path / "environment.json").write_text(content)
    record_process(tmp_path, {}, None)
    assert len(json.loads((tmp_path / "environment.json").read_text())["processes"]) == 1


def test_a_test_result_is_saved_and_not_a_number_is_null(tmp_path: Path) -> None:
    record_test(tmp_path / "model_best.pth", 3, {"loss": 0.5, "accuracy": float("nan")}, 100)
    saved = json.loads((tmp_path / "test.json").read_text())
    assert (saved["checkpoint"], saved["epoch"], saved["num_samples"]) == ("model_best.pth", 3, 100)
    assert saved["metrics"] == {"loss": 0.5, "accuracy": None}


def test_progress_never_reads_more_epochs_than_there_are() -> None:
    config = {"trainer": {"epochs": 6, "monitor": "max val_accuracy"}}
    monitor = {"best": 0.9, "best_epoch": 4}
    ended = progress({"epoch": 7, "step_in_epoch": 0, "global_step": 60}, monitor, config)
    assert (ended["epoch"], ended["epochs"]) == (6, 6)
    assert ended["best"] == {"metric": "val_accuracy", "mode": "max", "value": 0.9, "epoch": 4}
    assert progress({"epoch": 1, "step_in_epoch": 3, "global_step": 3}, {"best_epoch": 0}, config)["best"] is None


def test_status_keeps_the_start_and_adds_up_the_time(tmp_path: Path) -> None:
    old: dict[str, Any] = {"status": "preempted", "started": "2026-01-01T00:00:00+00:00", "seconds": 50, "pid": 1}
    (tmp_path / "status.json").write_text(json.dumps(old | {"updated": "2026-01-01T00:00:50+00:00"}))
    write_status(tmp_path, "running", 1, {})
    status = status_of(tmp_path)
    assert (status["started"], status["ended"], status["seconds"]) == (old["started"], None, 50)  # no pause is added
    (tmp_path / "status.json").write_text(json.dumps(status | {"updated": "2026-01-01T00:00:00+00:00"}))
    write_status(tmp_path, "completed", 1, {})
    assert status_of(tmp_path)["seconds"] > 50
    assert status_of(tmp_path)["ended"] == status_of(tmp_path)["updated"]


def test_name_and_tag_are_flags(tmp_path: Path) -> None:
    run_dir = train(small_config(tmp_path / "saved"), "--name", "other", "--tag", "a b", "--set", "trainer.epochs=1")
    assert run_dir.parent.name == "other"
    config = json.loads((run_dir / "config.json").read_text())
    assert (config["name"], config["tag"]) == ("other", "a b")
    run("-r", str(run_dir), "--tag", "better", "--set", "trainer.epochs=2")
    assert json.loads((run_dir / "config.json").read_text())["tag"] == "better"
    assert status_of(run_dir)["epoch"] == 2
