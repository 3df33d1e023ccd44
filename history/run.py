"""A run, as its files say."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from history.alive import is_alive
from history.files import CONFIG, STATUS, TEST, as_dict, read_object, read_optional, read_processes, read_records
from history.text import HistoryError, finite


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
        """The value of --tag."""
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
        """The last epoch that was trained."""
        if self._metrics_may_be_newer and self.epoch_log:
            return _whole(self.epoch_log[-1].get("epoch"))
        if "epoch" in self.state:
            return _whole(self.state["epoch"])
        position = as_dict(self.state.get("position"))  # of an earlier version: the next step
        epoch = _whole(position.get("epoch"))
        return epoch - (position.get("step_in_epoch") == 0) if epoch else None

    @property
    def epochs(self) -> int | None:
        """The configured number of epochs."""
        return _whole(as_dict(self.config.get("trainer")).get("epochs"))

    @cached_property
    def best(self) -> Best | None:
        """The best epoch; None without trainer.monitor."""
        said = as_dict(self.state.get("best"))
        value, epoch, mode = finite(said.get("value")), _whole(said.get("epoch")), said.get("mode")
        if value is not None and epoch is not None and mode in ("min", "max") and not self._metrics_may_be_newer:
            return Best(str(said.get("metric")), str(mode), value, epoch)
        mode, _, metric = str(as_dict(self.config.get("trainer")).get("monitor")).partition(" ")
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
        """The time that its processes took in all."""
        return finite(self.state.get("seconds"))

    @property
    def test_metrics(self) -> dict[str, Any]:
        """What test.py measured, by name."""
        return as_dict(self.test.get("metrics"))

    @property
    def git(self) -> dict[str, Any]:
        """Commit, branch, is_dirty of the code that the last process ran."""
        return as_dict(self.processes[-1].get("git")) if self.processes else {}

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl."""
        return read_records(self.path)

    @cached_property
    def epoch_log(self) -> list[dict[str, Any]]:
        """The records of epochs."""
        return [record for record in self.records if record.get("kind") == "epoch"]

    @property
    def is_for_debugging(self) -> bool:
        """Whether it trained on a few batches alone."""
        trainer = as_dict(self.config.get("trainer"))
        return bool(trainer.get("limit_batches") or trainer.get("overfit_batches"))

    @property
    def _metrics_may_be_newer(self) -> bool:
        """Whether metrics.jsonl may know more than status.json, which is written with each checkpoint."""
        return self.state.get("status") == "running" or "best" not in self.state


def read_run(path: Path) -> Run:
    """Return the run in the directory `path`. Raises HistoryError with the reason where it is not one."""
    if path.is_symlink():
        raise HistoryError(f"{path}: is a symbolic link{'' if path.exists() else ' to nowhere'}")
    if not path.is_dir():
        raise HistoryError(f"{path}: is {'not a directory' if path.exists() else 'missing'}")
    status, config = read_object(path / STATUS), read_object(path / CONFIG)
    return Run(path, status, config, read_optional(path / TEST), read_processes(path))


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and finite(value) is not None else None


def _time(value: Any) -> datetime | None:
    try:
        time = datetime.fromisoformat(value)
        return time if time.tzinfo else time.replace(tzinfo=timezone.utc)
    except (TypeError, ValueError):
        return None
