"""Prune deletes what it said, with --yes, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import pytest

import runs
from history.find import all_runs
from history.prune import Deletion, delete
from history.run import read_run
from history.text import HistoryError
from many_runs import BREAKAGES, make_run

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="makes pipes and links")
NOW = datetime.now(timezone.utc).isoformat()


def files(root: Path) -> set[str]:
    """Return the paths of everything under `root`."""
    return {str(path.relative_to(root)) for path in root.rglob("*")}


def ids(root: Path) -> set[str]:
    """Return the ids of the runs under `root`."""
    return {run.run_id for run in all_runs(root)[0]}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Return a directory with runs of every kind, one of them alive."""
    root = tmp_path / "saved"
    for i, loss in enumerate((0.5, 0.2, 0.3, 0.4)):
        make_run(root, "net", f"r{i}", losses=(loss, 0.9))
    make_run(root, "net", "failed", status="failed", updated=NOW)
    make_run(root, "net", "preempted", losses=(0.7,), status="preempted", updated=NOW)
    make_run(root, "net", "killed", losses=(0.7,), status="running")
    make_run(root, "net", "elsewhere", losses=(0.8,), status="running", host="another")
    make_run(root, "unranked", "u1")
    return root


def test_without_yes_nothing_is_deleted(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(saved)
    assert runs.main(["prune", str(saved), "--keep-best", "2", "--checkpoints"]) == 0
    said = capsys.readouterr().out
    assert files(saved) == before
    for run_id in ("r0", "r3", "failed"):
        assert f"{saved}/net/{run_id} " in said
    assert "add --yes" in said
    assert runs.main(["prune", str(saved)]) == 2


def test_the_best_those_that_can_go_on_and_those_without_a_best_stay(saved: Path) -> None:
    assert runs.main(["prune", str(saved), "--keep-best", "2", "--yes"]) == 0
    assert ids(saved) == {"r1", "r2", "preempted", "killed", "elsewhere", "u1"}


def test_what_is_old_goes_but_the_best_and_the_running(saved: Path) -> None:
    assert runs.main(["prune", str(saved), "--older-than", "3", "--yes"]) == 0
    assert ids(saved) == {"r1", "failed", "preempted", "elsewhere"}


def test_a_debugging_run_is_never_the_best(saved: Path) -> None:
    tiny = make_run(saved, "net", "tiny", losses=(0.001,))
    config = (tiny / "config.json").read_text()
    (tiny / "config.json").write_text(config.replace('"monitor"', '"overfit_batches": 1, "monitor"'))
    assert runs.main(["prune", str(saved), "--keep-best", "1", "--yes"]) == 0
    assert ids(saved) & {"tiny", "r1"} == {"r1"}


def test_checkpoints_go_but_never_the_best_and_the_latest(saved: Path) -> None:
    assert runs.main(["prune", str(saved), "--checkpoints", "--yes"]) == 0
    assert len(ids(saved)) == 9
    left = {run_id: {path.name for path in (saved / "net" / run_id).glob("*.pth")} for run_id in ("r0", "preempted")}
    assert left["r0"] == {"latest.pth", "model_best.pth"}
    assert left["preempted"] == {"latest.pth", "model_best.pth", "previous.pth", "checkpoint-epoch1.pth"}


def test_sizes_count_a_file_with_several_names_once(saved: Path) -> None:
    path = saved / "net" / "r0"
    for name in ("checkpoint-epoch1.pth", "previous.pth"):
        (path / name).unlink()
    os.link(path / "latest.pth", path / "checkpoint-epoch1.pth")
    whole = sum(file.stat().st_size for file in path.iterdir()) - 1000
    assert Deletion(read_run(path), "").size == whole
    assert Deletion(read_run(path), "", (path / "checkpoint-epoch1.pth",)).size == 0  # latest.pth has the same bytes


def test_no_link_is_followed_and_what_is_no_run_stays(saved: Path, tmp_path: Path) -> None:
    outside = make_run(tmp_path / "outside", "net", "o1", losses=(0.9,))
    (saved / "net" / "link").symlink_to(outside)
    (saved / "linked").symlink_to(outside.parent)
    (saved / "net" / "r0" / "figures").symlink_to(outside)
    (saved / "net" / "notes").mkdir()
    (saved / "net" / "notes" / "mine.txt").write_text("keep")
    (saved / "net" / "file").write_text("keep")
    for i, breakage in enumerate(BREAKAGES.values()):
        breakage(make_run(saved, "broken", f"b{i}"))
    kept = {name for name in files(saved) if name.startswith(("broken", "net/notes", "net/file", "net/link", "linked"))}
    before = files(tmp_path / "outside")
    assert runs.main(["prune", str(saved), "--keep-best", "0", "--older-than", "0", "--yes"]) == 0
    assert ids(saved) == {"elsewhere"}
    assert kept <= files(saved)
    assert files(tmp_path / "outside") == before
    with pytest.raises(HistoryError, match="lies outside"):
        delete(Deletion(read_run(outside), ""), saved)
    assert files(tmp_path / "outside") == before


def test_a_run_that_was_resumed_meanwhile_stays(saved: Path) -> None:
    path = saved / "net" / "r0"
    deletion = Deletion(read_run(path), "")
    code = "import sys, fcntl; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print(1, flush=True); input()"
    command = [sys.executable, "-c", code, str(path / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(HistoryError, match="resumed meanwhile"):
            delete(deletion, saved)
        process.communicate(b"\n")
    assert (path / "latest.pth").exists()
    delete(deletion, saved)
    assert not path.exists()
