"""Mirrors of a run: the same numbers in each tracker, once each, whatever was killed when."""

from __future__ import annotations

import json
import os
import random
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from faults import exit_code, finish, small_config, start, the_run, wait_until, whole_run, write_config
from helpers import ROOT
from trackers.lines import covered_lines
from trackers.mirror import FOLDER

NAMES = ("wandb", "mlflow", "trackio")
Point = tuple[str, int, float]
# Loaded by each Python that starts: a mirror then dies twice when it has sent something and not yet marked it.
DIES_TWICE = """
import os, pathlib, signal, sys
if "trackers" in sys.orig_argv:
    import trackers.mirror
    write = trackers.mirror.write_mark
    def write_mark(mark, num_lines):
        deaths = mark.with_suffix(".deaths")
        num_deaths = len(deaths.read_text()) if deaths.exists() else 0
        if num_deaths < 2:
            deaths.write_text("x" * (num_deaths + 1))
            os.kill(os.getpid(), signal.SIGKILL)
        write(mark, num_lines)
    trackers.mirror.write_mark = write_mark
"""


def set_places(folder: Path, with_deaths: bool = False) -> None:
    """Let the trackers of this process keep everything in `folder`."""
    os.environ |= {"WANDB_MODE": "offline", "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    os.environ["TRACKIO_DIR"] = str(folder / "trackio")
    if with_deaths:
        os.environ["PYTHONPATH"] = str(folder)


def records(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def logged(run_dir: Path) -> list[Point]:
    """Return what metrics.jsonl holds, as (name, global step, value), sorted."""
    points = []
    for record in records(run_dir):
        kind, _, step = (record.pop(key) for key in ("kind", "epoch", "global_step"))
        points += [(f"step/{name}" if kind == "step" else name, step, value) for name, value in record.items()]
    return sorted(points)


def in_wandb(run_dir: Path) -> list[Point]:
    """Return what the files for `wandb sync` hold: records in the log format of LevelDB, protobuf in each."""
    from wandb.proto import wandb_internal_pb2 as protobuf

    points = []
    for path in sorted((run_dir / FOLDER).glob("**/*.wandb")):
        for data in leveldb_records(path.read_bytes()[7:]) if not path.is_symlink() else ():
            record = protobuf.Record.FromString(data)  # type: ignore[attr-defined]
            values = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            step = values.pop("global_step", None)
            points += [(name, step, value) for name, value in values.items() if not name.startswith("_")]
    return sorted(points)


def leveldb_records(data: bytes) -> Iterator[bytes]:
    """Yield the records of a log: blocks of 32 KiB, the first of which has a header of 7 bytes before `data`."""
    position, parts = 7, b""
    data = b"\0" * 7 + data
    while position + 7 <= len(data):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
            continue
        _, size, kind = struct.unpack("<IHB", data[position : position + 7])
        parts += data[position + 7 : position + 7 + size]
        position += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def in_mlflow(run_dir: Path, folder: Path) -> list[Point]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name(records_config(run_dir)["name"])
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    histories = [client.get_metric_history(run.info.run_id, name) for name in run.data.metrics if name != "line"]
    return sorted((point.key, point.step, point.value) for history in histories for point in history)


def in_trackio(run_dir: Path) -> list[Point]:
    from trackio.sqlite_storage import SQLiteStorage

    (name,) = SQLiteStorage.get_runs(records_config(run_dir)["name"])
    logs = SQLiteStorage.get_logs(records_config(run_dir)["name"], name)
    meta = {"line", "step", "timestamp"}
    return sorted((key, log["step"], value) for log in logs for key, value in log.items() if key not in meta)


def records_config(run_dir: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((run_dir / "config.json").read_text())
    return config


def marked(run_dir: Path, name: str) -> int:
    path = run_dir / FOLDER / f"{name}.json"
    return int(json.loads(path.read_text())["lines"]) if path.exists() else 0


def has_lines(save_dir: Path, num: int) -> bool:
    return any(len(path.read_text().splitlines()) > num for path in save_dir.glob("*/*/metrics.jsonl"))


def are_free(locks: list[Path]) -> bool:
    """Whether no mirror is at work, and each has been."""
    from filelock import FileLock, Timeout

    try:
        for lock in locks:
            if not lock.exists():
                return False
            with FileLock(lock, timeout=0):
                pass
        return True
    except Timeout:
        return False


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the libraries that the numbers are read by
@pytest.mark.skipif(any(find_spec(name) is None for name in NAMES), reason="needs requirements-extras.txt")
def test_each_tracker_holds_every_number_once_after_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text(DIES_TWICE)
    config = small_config(tmp_path / "run", trainer__epochs=8, trainer__writers=["tensorboard", *NAMES])
    args, setup = ("-c", write_config(config), "--resume-latest"), partial(set_places, tmp_path, True)
    generator = random.Random(0)
    for num_kills in range(5):
        process = start(*args, setup=setup)
        enough = 8 * num_kills + generator.randint(4, 10)
        wait_until(partial(has_lines, tmp_path / "run", enough))
        os.kill(process.pid or 0, signal.SIGKILL)
        assert exit_code(process) == -signal.SIGKILL
        locks = [the_run(config) / FOLDER / f"{name}.lock" for name in NAMES]
        wait_until(partial(are_free, locks))
    assert finish(*args, setup=setup) == 0
    run_dir = the_run(config)
    num_lines = len(records(run_dir))
    wait_until(lambda: all(marked(run_dir, name) == num_lines for name in NAMES))
    assert [(run_dir / FOLDER / f"{name}.deaths").read_text() for name in NAMES] == ["xx"] * 3
    set_places(tmp_path)
    expected = logged(run_dir)
    wait_until(lambda: are_free([run_dir / FOLDER / "wandb.lock"]))
    assert in_wandb(run_dir) == expected
    assert in_mlflow(run_dir, tmp_path) == expected
    assert in_trackio(run_dir) == expected


@pytest.mark.slow
@pytest.mark.skipif(find_spec("wandb") is None, reason="needs wandb")
def test_a_tracker_that_fails_is_named_once_and_training_goes_on(tmp_path: Path) -> None:
    config = small_config(tmp_path / "run", trainer__epochs=2, trainer__writers=["wandb"])
    assert finish("-c", write_config(config), setup=refuse_wandb) == 0
    log = (the_run(config) / "info.log").read_text()
    assert log.count("wandb: ") == 1
    assert f"send it later by: python -m trackers {the_run(config)} wandb; training goes on" in log
    assert not list(the_run(config).glob("events*"))  # writers does not name tensorboard


def refuse_wandb() -> None:
    """Let wandb find nobody at its server's address, and no key that it could ask with."""
    os.environ |= {"WANDB_MODE": "online", "WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "0" * 40}
    os.environ |= {"WANDB_INIT_TIMEOUT": "5"}


def test_only_lines_that_a_checkpoint_covers_are_sent(tmp_path: Path) -> None:
    run_dir = whole_run(small_config(tmp_path / "run", trainer__epochs=2, trainer__keep_checkpoints=2))
    whole = records(run_dir)
    assert [line.number for line in covered_lines(run_dir)] == list(range(len(whole)))
    os.replace(run_dir / "checkpoint-epoch1.pth", run_dir / "latest.pth")
    covered = covered_lines(run_dir)
    assert whole[len(covered) - 1]["kind"] == "epoch"
    assert {record["epoch"] for record in whole[: len(covered)]} == {1}
    os.remove(run_dir / "latest.pth")
    assert covered_lines(run_dir) == []


def test_a_writer_that_is_not_installed_is_a_mistake_of_the_config(tmp_path: Path, monkeypatch: Any) -> None:
    import train
    from utils import ConfigError

    monkeypatch.setattr("parse_config.options.find_spec", lambda name: None)
    config = small_config(tmp_path / "run", trainer__writers=["mlflow"])
    with pytest.raises(ConfigError, match=r"trainer.writers: .*mlflow is not installed; pip install mlflow"):
        train.parse_args(["-c", write_config(config)])


def test_a_mirror_imports_no_torch() -> None:
    code = "import sys, trackers.mirror, trackers.start; print('torch' in sys.modules)"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout == "False\n"


def test_by_hand_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trackers", str(tmp_path), "wandb"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.endswith(f"{tmp_path}: is no run directory\n")
