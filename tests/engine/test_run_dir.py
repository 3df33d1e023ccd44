"""A run directory: what is not the run's stays, nothing is lost in silence, and one process writes at a time."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import toy
from base import BaseTrainer
from checkpoint.file import load_checkpoint, serialise
from faults import assert_same_run, exit_code, finish, start, the_run, wait_until, write_config
from helpers import newest, records_of, write_given
from logger import TensorboardWriter
from toy_runs import run, small_config, stopped_at, train
from utils import CheckpointError, RunDirError

pytestmark = pytest.mark.e2e  # whole runs

HOST = socket.gethostname()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of 2 epochs that never stopped."""
    return train(small_config(tmp_path_factory.mktemp("whole") / "saved", trainer__keep_checkpoints=1))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the same run, stopped in its second epoch."""
    config = small_config(tmp_path_factory.mktemp("stopped") / "saved", trainer__keep_checkpoints=1)
    with stopped_at(9):
        train(config)
    return the_run(config)


@pytest.fixture
def copied(stopped: Path, tmp_path: Path) -> Path:
    """Return a copy of the stopped run."""
    return shutil.copytree(stopped, tmp_path / "saved" / "toy" / stopped.name)


# What is not the run's.

NOT_OURS = [
    *(".notes.tmp", ".notes.123.tmp", "latest.pth.tmp", ".latest.pth.tmp", "metrics.jsonl.1.tmp", ".lock.1.tmp"),
    *("checkpoint-epoch3-backup.pth", "checkpoint-epoch0.pth", "checkpoint-epoch01.pth", "checkpoint-epoch1.pth.bak"),
    *("checkpoint-epoch.pth", "my_export.pth", "model_best.pth.old", "metrics.jsonl.orig", "info.log.1"),
    *("events.out.tfevents.mine", "events.out.tfevents.1700000000.other.17.0", "folder/events.out.tfevents.mine"),
    *(f"events.out.tfevents.1700000000.{HOST}.17.0.run5", f"folder/events.out.tfevents.1.{HOST}.1.0"),
]


@pytest.fixture(scope="module")
def shared(stopped: Path, whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run that went on with strange files in it, and with hard links of its own in ../links."""
    run_dir = shutil.copytree(stopped, tmp_path_factory.mktemp("shared") / "run")
    (run_dir / "folder").mkdir()
    for name in NOT_OURS:
        (run_dir / name).write_text(name)
    for name in (".latest.pth.99.tmp", ".checkpoint-epoch1.pth.7.tmp", ".status.json.1.tmp"):
        (run_dir / name).write_text("left by a killed process")
    (run_dir.parent / "links").mkdir()
    for path in run_dir.iterdir():
        if path.is_file():
            os.link(path, run_dir.parent / "links" / path.name)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(Path(toy.__file__).parents[2])
        run("-r", str(run_dir))
    assert_same_run(whole, run_dir)
    return run_dir


@pytest.mark.parametrize("name", NOT_OURS)
def test_a_file_that_no_run_wrote_stays(name: str, shared: Path) -> None:
    assert (shared / name).read_text() == name


def test_what_a_killed_process_left_half_written_goes(shared: Path) -> None:
    assert not [path for path in shared.glob(".*.tmp") if path.name not in NOT_OURS]


def test_another_name_of_a_file_of_the_run_is_never_written_through(shared: Path, stopped: Path) -> None:
    paths = [path for path in stopped.iterdir() if path.is_file()]
    assert {"metrics.jsonl", "info.log", ".lock", "latest.pth", "config.json"} < {path.name for path in paths}
    for path in paths:
        assert (shared.parent / "links" / path.name).read_bytes() == path.read_bytes(), path.name


# Logs and checkpoints that do not belong together.


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the content of a checkpoint, which is whole afterwards."""
    state = load_checkpoint(path)
    change(state)
    path.unlink()
    path.write_bytes(serialise(state))


WRONG_LOGS: dict[str, Callable[[dict[str, Any]], object]] = {
    "of another run": lambda state: state["logs"].update(run=state["logs"]["run"] + 1),
    "without lengths": lambda state: state["logs"].clear(),
    "without that of the metrics": lambda state: state["logs"].pop("metrics.jsonl"),
}


@pytest.mark.parametrize("what", WRONG_LOGS)
def test_a_checkpoint_that_is_not_the_runs_cuts_no_curve(what: str, copied: Path) -> None:
    before = {path: path.read_bytes() for path in copied.iterdir() if path.suffix != ".pth"}
    rewrite(copied / "latest.pth", WRONG_LOGS[what])
    with pytest.raises(CheckpointError, match=r"latest.pth: (is of another run; -c with -r|malformed: it does not)"):
        run("-r", str(copied))
    assert {path: path.read_bytes() for path in before} == before


def test_a_twins_checkpoint_is_refused_and_can_be_fine_tuned_from(copied: Path, whole: Path) -> None:
    shutil.copy(whole / "checkpoint-epoch2.pth", copied)
    for args in (("-r", str(copied)), ("-r", str(copied / "checkpoint-epoch2.pth"))):
        with pytest.raises(CheckpointError, match=r"checkpoint-epoch2\.pth: is of another run"):
            run(*args)
    config = str(copied / "config.json")
    tuned = run("-c", config, "-r", str(copied), "--set", f"trainer.save_dir={copied.parents[1]}")
    assert newest(tuned)["logs"]["run"] not in (newest(whole)["logs"]["run"], 0)


def test_a_run_that_an_earlier_version_began_is_numbered(copied: Path, whole: Path) -> None:
    events = next(copied.glob("events*"))
    old_name, size = events.name.rsplit(".", 1)[0], events.stat().st_size
    events.rename(copied / old_name)
    killed = copied / f"events.out.tfevents.{int(time.time())}.{HOST}.77.0"  # of a process after the last checkpoint
    killed.write_bytes(events.with_name(old_name).read_bytes())

    def as_before(state: dict[str, Any]) -> None:
        state["logs"] = {"metrics.jsonl": state["logs"]["metrics.jsonl"], old_name: size}

    rewrite(copied / "latest.pth", as_before)
    (copied / "status.json").write_text("{")
    run("-r", str(copied))
    assert_same_run(whole, copied)
    assert not killed.exists()
    assert json.loads((copied / "status.json").read_text())["run"] == newest(copied)["logs"]["run"] > 0


@pytest.mark.parametrize(
    ("kept", "num_lost"),
    [(None, "all"), (0, "all"), (100, "most"), (-1, "1 line")],
    ids=["missing", "empty", "torn", "without its last byte"],
)
def test_a_log_that_is_shorter_than_it_was_is_told(
    kept: int | None, num_lost: str, copied: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = copied / "metrics.jsonl"
    data = path.read_bytes()
    size = newest(copied)["logs"]["metrics.jsonl"]
    path.unlink() if kept is None else path.write_bytes(data[:kept] if kept >= 0 else data[: size + kept])
    run("-r", str(copied))
    steps = [record["global_step"] for record in records_of(copied) if record["kind"] == "step"]
    assert steps == ({"all": [10, 11, 12], "1 line": [*range(1, 9), 10, 11, 12]}.get(num_lost) or steps)
    assert f"of the {size:,} bytes that were logged are lost" in caplog.text


def test_an_event_file_that_is_missing_is_told(copied: Path, caplog: pytest.LogCaptureFixture) -> None:
    events = next(copied.glob("events*"))
    events.unlink()
    run("-r", str(copied))
    assert f"'{events.name}': " in caplog.text


def test_points_stay_in_order_when_the_clock_is_set_back(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = small_config(tmp_path / "saved", trainer__keep_checkpoints=1)
    clock = time.time
    for place, hours in ((3, 5), (3, 1), (2, 1)):  # the last two begin in one hour, and one second
        monkeypatch.setattr(time, "time", lambda hours=hours: clock() + 3600 * hours)
        with stopped_at(place):
            run("-c", write_given(config), "--resume-latest")
    monkeypatch.undo()
    os.chdir(Path(toy.__file__).parents[2])
    run("-r", str(the_run(config)))
    assert_same_run(whole, the_run(config))
    events = EventAccumulator(str(the_run(config))).Reload()
    assert [event.step for event in events.Scalars("step/loss")] == list(range(1, 13))
    assert "the clock is " in caplog.text


def test_folders_of_curves_keep_their_order_too(tmp_path: Path) -> None:
    for step in range(5):  # five processes in one second
        writer = TensorboardWriter(tmp_path)
        writer.set_step(step)
        writer.add_scalars("a", {"b": step})
        writer.close()
    events = EventAccumulator(str(tmp_path / "a_train_b")).Reload()
    assert [event.step for event in events.Scalars("a/train")] == list(range(5))


@pytest.mark.parametrize("damage", ["flipped", "cut", "emptied"])
def test_a_damaged_file_is_set_aside_and_written_again(damage: str, copied: Path, whole: Path) -> None:
    latest = copied / "latest.pth"
    data = latest.read_bytes()
    damaged = {"flipped": data[:99] + bytes([data[99] ^ 1]) + data[100:], "cut": data[:-50], "emptied": b""}[damage]
    latest.write_bytes(damaged)
    run("-r", str(copied))
    assert (copied / "latest.pth.damaged").read_bytes() == damaged
    assert_same_run(whole, copied)


def test_a_damaged_file_gets_its_name_back_though_nothing_is_left_to_train(whole: Path, tmp_path: Path) -> None:
    run_dir = shutil.copytree(whole, tmp_path / "run")
    for name in ("latest.pth", "model_best.pth"):
        (run_dir / name).write_bytes((run_dir / name).read_bytes()[:-1])
    run("-r", str(run_dir))
    for name in ("latest.pth", "model_best.pth"):
        assert load_checkpoint(run_dir / name)["epoch"] == 2
        assert (run_dir / f"{name}.damaged").exists()


# A directory that is taken away from a run.


def delete_lock(run_dir: Path) -> None:
    (run_dir / ".lock").unlink()


def replace_lock(run_dir: Path) -> None:
    (run_dir / ".lock").unlink()
    (run_dir / ".lock").touch()


def rename(run_dir: Path) -> None:
    run_dir.rename(run_dir.with_name("renamed"))


def replace_by_a_copy(run_dir: Path) -> None:
    rename(run_dir)
    shutil.copytree(run_dir.with_name("renamed"), run_dir)


@pytest.mark.parametrize("loop", ["counted", "plain"])
@pytest.mark.parametrize("place", [2, 6, 12], ids=["in an epoch", "at its end", "at the end of all"])
@pytest.mark.parametrize("take_away", [delete_lock, replace_lock, rename, replace_by_a_copy, shutil.rmtree])
def test_a_run_whose_directory_is_taken_away_ends_and_writes_no_more(
    take_away: Callable[[Path], None], place: int, loop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_if_due = BaseTrainer._save_if_due
    files: dict[Path, bytes] = {}

    def taking_away(trainer: BaseTrainer) -> None:
        save_if_due(trainer)
        if trainer.position.global_step == place and not files:
            trainer.checkpoints.wait()  # type: ignore[union-attr]
            trainer.run_log.sizes()  # type: ignore[union-attr]
            take_away(trainer.checkpoint_dir)
            files.update(shared_files(trainer.checkpoint_dir))

    monkeypatch.setattr(BaseTrainer, "_save_if_due", taking_away)
    config = small_config(tmp_path / "saved", trainer__loop=loop)
    with pytest.raises(RunDirError, match=r"(deleted, moved or replaced|No such file)") as caught:
        train(config)
    assert "\n" not in str(caught.value)
    assert {path: data for path, data in shared_files(tmp_path / "saved").items() if path in files} == files
    assert len(list((tmp_path / "saved" / "toy").glob("2*"))) == bool(files)


def shared_files(folder: Path) -> dict[Path, bytes]:
    """Return the files that a second process would write to as well: not the first one's event file and open log."""
    paths = [path for path in folder.rglob("*") if path.is_file() and "events" not in path.name]
    return {path: path.read_bytes() for path in paths if path.name != "info.log"}


def test_a_second_process_is_refused_where_the_lock_was_deleted(tmp_path: Path) -> None:
    config = small_config(tmp_path / "run", trainer__epochs=100_000, trainer__early_stop=None)
    stderr = tmp_path / "stderr"
    first = start("-c", write_config(config), script="toy", stderr=stderr)
    wait_until(lambda: list(tmp_path.glob("run/*/*/checkpoint-epoch1.pth")))
    assert first.pid is not None
    os.kill(first.pid, signal.SIGSTOP)
    (the_run(config) / ".lock").unlink()
    for args in (("-r", str(the_run(config))), ("-c", write_config(config), "--resume-latest")):
        with pytest.raises(RunDirError, match=f"in use by pid {first.pid} on {HOST}"):
            run(*args)
    os.kill(first.pid, signal.SIGCONT)
    assert exit_code(first) == 6
    assert stderr.read_text().count("\n") == 1
    run("-r", str(the_run(config)), "--set", "trainer.epochs=1")


# Several processes that want the first run.


def wait_for(path: Path) -> None:
    """Wait until the file is there."""
    wait_until(path.exists)


def test_of_three_that_start_at_once_one_trains_and_the_others_say_so(tmp_path: Path) -> None:
    config = small_config(tmp_path / "run", trainer__epochs=100_000, trainer__early_stop=None)
    args = ("-c", write_config(config), "--resume-latest")
    setup = partial(wait_for, tmp_path / "go")
    processes = [start(*args, script="toy", setup=setup, stderr=tmp_path / f"stderr{i}") for i in range(3)]
    (tmp_path / "go").touch()
    wait_until(lambda: sum(process.is_alive() for process in processes) == 1)
    [trainer] = [process for process in processes if process.is_alive()]
    wait_until(lambda: list(tmp_path.glob("run/*/*/latest.pth")))
    trainer.terminate()
    assert sorted(exit_code(process) for process in processes) == [6, 6, 143]
    lines = [(tmp_path / f"stderr{i}").read_text() for i in range(3) if processes[i] is not trainer]
    assert all(f"in use by pid {trainer.pid} on {HOST}" in line and line.count("\n") == 1 for line in lines)
    assert [path.name for path in (tmp_path / "run" / "toy").iterdir()] == [the_run(config).name]
    assert finish(*args[:2], "--set", "trainer.epochs=1", script="toy") == 0  # without the flag, a run of its own
    assert len(list((tmp_path / "run" / "toy").iterdir())) == 2
