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
    name: str  # of the config, and so of the directory that the run lies in
    run_id: str  # the name of the run directory
    tag: str
    state: dict[str, Any]  # status.json
    config: dict[str, Any]
    trainer: dict[str, Any]  # that section of the config
    started: datetime | None  # its first process
    updated: datetime | None  # status.json
    seconds: float | None  # that its processes took in all
    test_metrics: dict[str, Any]  # of test.json
    processes: list[dict[str, Any]]  # of environment.json, the first one first
    git: dict[str, Any]  # commit, branch, is_dirty of the last process

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
        return _whole(self.trainer.get("epochs"))

    @cached_property
    def best(self) -> Best | None:
        """The best epoch; None without trainer.monitor."""
        said = as_dict(self.state.get("best"))
        value, epoch, mode = finite(said.get("value")), _whole(said.get("epoch")), said.get("mode")
        if value is not None and epoch is not None and mode in ("min", "max") and not self._metrics_may_be_newer:
            return Best(str(said.get("metric")), str(mode), value, epoch)
        mode, _, metric = str(self.trainer.get("monitor")).partition(" ")
        values = [(finite(log.get(metric)), _whole(log.get("epoch"))) for log in self.epoch_log]
        known = [(value, epoch) for value, epoch in values if value is not None and epoch is not None]
        if mode not in ("min", "max") or not known:
            return None
        value, epoch = (min if mode == "min" else max)(known, key=lambda pair: pair[0])
        return Best(metric, str(mode), value, epoch)

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
        return bool(self.trainer.get("limit_batches") or self.trainer.get("overfit_batches"))

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
    state, config, processes = read_object(path / STATUS), read_object(path / CONFIG), read_processes(path)
    updated = _time(state.get("updated") or state.get("time"))
    return Run(
        path=path,
        name=path.absolute().parent.name,
        run_id=path.absolute().name,
        tag=str(config.get("tag") or ""),
        state=state,
        config=config,
        trainer=as_dict(config.get("trainer")),
        started=_time(state.get("started")) or updated,
        updated=updated,
        seconds=finite(state.get("seconds")),
        test_metrics=as_dict(read_optional(path / TEST).get("metrics")),
        processes=processes,
        git=as_dict(processes[-1].get("git")) if processes else {},
    )


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and finite(value) is not None else None


def _time(value: Any) -> datetime | None:
    try:
        time = datetime.fromisoformat(value)
        return time if time.tzinfo else time.replace(tzinfo=timezone.utc)
    except (TypeError, ValueError):
        return None
