"""A run, read from its directory. The files may be old, half written, or not a run's at all."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from history.alive import is_alive
from history.text import HistoryError, finite

CONFIG, STATUS, METRICS = "config.json", "status.json", "metrics.jsonl"
ENVIRONMENT, TEST = "environment.json", "test.json"
MAX_JSON_BYTES, MAX_DIFF_BYTES = 32 << 20, 200_000


class Best(NamedTuple):
    """The best epoch, as `trainer.monitor` says."""

    metric: str
    mode: str  # "min" or "max"
    value: float
    epoch: int


class Broken(NamedTuple):
    """A directory in a run's place that cannot be read as one."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Run:
    """A run. What a file does not say, or says wrongly, is None or empty."""

    path: Path
    state: dict[str, Any]  # status.json
    config: dict[str, Any]
    test: dict[str, Any]
    processes: list[dict[str, Any]]  # of environment.json, the first one first

    @property
    def name(self) -> str:
        """The config's name, which is the directory that the run lies in."""
        return self.path.absolute().parent.name

    @property
    def run_id(self) -> str:
        """The name of the run directory."""
        return self.path.absolute().name

    @property
    def tag(self) -> str:
        """What --tag said."""
        return str(self.config.get("tag") or "")

    @cached_property
    def status(self) -> str:
        """What status.json says; "killed" where the process is gone, "running?" where another host has it."""
        status = str(self.state.get("status") or "unknown")
        if status != "running":
            return status
        return {True: "running", False: "killed", None: "running?"}[is_alive(self.path, self.state)]

    @property
    def epoch(self) -> int | None:
        """The last epoch that was trained in."""
        if self._may_have_gone_on and self.epoch_log:
            return _whole(self.epoch_log[-1].get("epoch"))
        if "epoch" in self.state:
            return _whole(self.state["epoch"])
        position = _dict(self.state.get("position"))  # of an earlier version: the next step
        epoch = _whole(position.get("epoch"))
        return epoch - (position.get("step_in_epoch") == 0) if epoch else None

    @property
    def epochs(self) -> int | None:
        """The number of epochs that were asked for."""
        return _whole(_dict(self.config.get("trainer")).get("epochs"))

    @cached_property
    def best(self) -> Best | None:
        """The best epoch; None without trainer.monitor."""
        said = _dict(self.state.get("best"))
        value, epoch, mode = finite(said.get("value")), _whole(said.get("epoch")), said.get("mode")
        if value is not None and epoch is not None and mode in ("min", "max") and not self._may_have_gone_on:
            return Best(str(said.get("metric")), str(mode), value, epoch)
        mode, _, metric = str(_dict(self.config.get("trainer")).get("monitor")).partition(" ")
        values = [(finite(log.get(metric)), _whole(log.get("epoch"))) for log in self.epoch_log]
        known = [(value, epoch) for value, epoch in values if value is not None and epoch is not None]
        if mode not in ("min", "max") or not known:
            return None
        value, epoch = (min if mode == "min" else max)(known, key=lambda pair: pair[0])
        return Best(metric, str(mode), value, epoch)

    @property
    def started(self) -> datetime | None:
        """When its first process started."""
        return _time(self.state.get("started")) or self.updated

    @property
    def updated(self) -> datetime | None:
        """When it last wrote status.json."""
        return _time(self.state.get("updated") or self.state.get("time"))

    @property
    def seconds(self) -> float | None:
        """How long its processes ran, together."""
        return finite(self.state.get("seconds"))

    @property
    def test_metrics(self) -> dict[str, Any]:
        """What test.py measured, by name."""
        return _dict(self.test.get("metrics"))

    @property
    def git(self) -> dict[str, Any]:
        """Commit, branch, is_dirty of the code that the last process ran."""
        return _dict(self.processes[-1].get("git")) if self.processes else {}

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl."""
        return read_records(self.path)

    @property
    def epoch_log(self) -> list[dict[str, Any]]:
        """The records of epochs."""
        return [record for record in self.records if record.get("kind") == "epoch"]

    @property
    def is_for_debugging(self) -> bool:
        """Whether it trained on a few batches alone."""
        trainer = _dict(self.config.get("trainer"))
        return bool(trainer.get("limit_batches") or trainer.get("overfit_batches"))

    @property
    def _may_have_gone_on(self) -> bool:
        """Whether metrics.jsonl may know more than status.json, which is written with each checkpoint."""
        return self.state.get("status") == "running" or "best" not in self.state


def read_run(path: Path) -> Run:
    """Return the run in the directory `path`. Raises HistoryError with the reason where it is not one."""
    if path.is_symlink():
        raise HistoryError(f"{path}: is a symbolic link{'' if path.exists() else ' to nowhere'}")
    if not path.is_dir():
        raise HistoryError(f"{path}: is {'not a directory' if path.exists() else 'missing'}")
    status, config = _read_object(path / STATUS), _read_object(path / CONFIG)
    return Run(path, status, config, read_optional(path / TEST), read_processes(path))


def read_records(run_dir: Path) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl that are whole: a run may be killed, or just now be writing, in one."""
    try:
        with _open_regular(run_dir / METRICS) as file:
            return [record for line in file if (record := _record(line))]
    except (OSError, HistoryError):
        return []


def read_processes(run_dir: Path) -> list[dict[str, Any]]:
    """Return what environment.json says of each process that trained the run, the first one first."""
    found = read_optional(run_dir / ENVIRONMENT).get("processes")
    return [process for process in found if isinstance(process, dict)] if isinstance(found, list) else []


def read_diff(run_dir: Path, process: dict[str, Any]) -> str:
    """Return how the code of a process differed from its commit, at most 200 kB of it; "" where that is not known."""
    name = str(_dict(process.get("git")).get("diff") or "")
    path = run_dir / name
    if not name or "/" in name or "\\" in name or path.is_symlink():
        return ""
    try:
        with _open_regular(path) as file:
            return file.read(MAX_DIFF_BYTES).decode(errors="replace")
    except (OSError, HistoryError):
        return ""


def _read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file. Raises HistoryError with the reason where there is none."""
    try:
        with _open_regular(path) as file:
            content = file.read(MAX_JSON_BYTES)
        value = json.loads(content)
    except FileNotFoundError:
        raise HistoryError(f"{path}: is {'a link to nowhere' if path.is_symlink() else 'missing'}") from None
    except OSError as error:
        raise HistoryError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError):
        raise HistoryError(f"{path}: is {'not valid JSON' if content.strip() else 'empty'}") from None
    if not isinstance(value, dict):
        raise HistoryError(f"{path}: is not a JSON object")
    return value


def _open_regular(path: Path) -> Any:
    """Open a file; not a pipe, which may never end, nor a directory. Raises OSError, HistoryError."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        raise HistoryError(f"{path}: is {'a directory' if stat.S_ISDIR(mode) else 'not a regular file'}")
    return open(path, "rb")


def read_optional(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; {} where there is none."""
    try:
        return _read_object(path)
    except HistoryError:
        return {}


def _record(line: bytes) -> dict[str, Any]:
    try:
        return _dict(json.loads(line))
    except (ValueError, RecursionError):
        return {}


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and finite(value) is not None else None


def _time(value: Any) -> datetime | None:
    try:
        time = datetime.fromisoformat(value)
        return time if time.tzinfo else time.replace(tzinfo=timezone.utc)
    except (TypeError, ValueError):
        return None
