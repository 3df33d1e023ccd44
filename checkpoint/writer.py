"""Writes checkpoints in the background, so that training waits for the snapshot alone."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch

from checkpoint.file import BEST, LATEST, PREVIOUS, epoch_of, serialise
from checkpoint.run_status import progress, write_status
from checkpoint.shards import remove_unnamed
from logger.run_log import RUN
from utils.errors import NonFiniteError, writing_to
from utils.files import fsync_dir, write_temp
from utils.nested import map_tensors

USUAL_GRACE_S = 30  # what Kubernetes gives a process between SIGTERM and SIGKILL, and Slurm by default
NUMPY_FLOATS = (torch.float16, torch.float32, torch.float64)
logger = logging.getLogger("checkpoint")


class CheckpointWriter:
    """Saves snapshots to a run directory, one at a time, oldest epochs deleted where only some are kept.

    The error of a write is raised by the next call of any method, and at the latest on leaving the context.
    """

    def __init__(self, run_dir: Path, keep: int | None, sync_logs: Callable[[], None]) -> None:
        """`keep` is how many of the newest epoch checkpoints stay, None for all; the best of `keep_best` do as well.

        `sync_logs` puts the log files on the disk; a checkpoint that knows of them must not be there before them. It
        raises RunDirError where the run directory is no longer this process's.
        """
        self.run_dir = run_dir
        self.keep = keep
        self._sync_logs = sync_logs
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    def save(self, state: dict[str, Any], epoch: int | None = None, is_best: bool = False) -> None:
        """Write `state` as `latest.pth`, and of `epoch` as its own checkpoint, and as the best where it is.

        Returns when `state` is cloned, and waits for the write before this one. Raises RunDirError.
        """
        started = time.perf_counter()
        snapshot = clone_to_cpu(state)
        cloned = time.perf_counter()
        self.wait()
        names = [f"checkpoint-epoch{epoch}.pth"] if epoch is not None else []
        names += [BEST] if is_best else []
        self._pending = self._executor.submit(self._write, snapshot, [*names, LATEST], cloned - started)

    def raise_error(self) -> None:
        """Raise RunDirError where the last write failed; do not wait for one under way."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Wait for the write under way. Raises RunDirError where it failed."""
        pending, self._pending = self._pending, None
        if pending is not None:
            with writing_to(self.run_dir):
                pending.result()

    def __enter__(self) -> CheckpointWriter:
        """Return self."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Finish the write under way; where nothing else went wrong, raise its error."""
        self._executor.shutdown(wait=True)
        if error is None:
            self.wait()

    def _write(self, snapshot: dict[str, Any], names: list[str], clone_s: float) -> None:
        started = time.perf_counter()
        self._write_file(snapshot, names)
        seconds = time.perf_counter() - started
        text = f"saved {', '.join(names)} in {seconds:.2f} s; training waited {clone_s:.3f} s"
        if seconds + clone_s > USUAL_GRACE_S / 2:
            logger.warning(f"{text}; that is near the {USUAL_GRACE_S} s which a stopped job is usually given")
        else:
            logger.debug(text)

    def _write_file(self, snapshot: dict[str, Any], names: list[str]) -> None:
        for part in snapshot.values():
            check_finite(part, self.run_dir)
        temp = write_temp(self.run_dir / LATEST, serialise(snapshot))
        try:
            self._sync_logs()
            if (self.run_dir / LATEST).exists():  # so that a damaged file always has one before it
                link(self.run_dir / LATEST, PREVIOUS)
            for name in names[:-1]:
                link(temp, name)
            os.replace(temp, self.run_dir / LATEST)  # last: whoever resumes from it finds the others
        finally:
            temp.unlink(missing_ok=True)
        fsync_dir(self.run_dir)
        self._prune(best_epochs(snapshot))
        so_far = progress(snapshot["position"], snapshot["monitor"], snapshot["config"])
        write_status(self.run_dir, "running", snapshot.get("logs", {}).get(RUN), so_far)

    def _prune(self, best: set[int]) -> None:
        """Delete the oldest epoch checkpoints beyond `keep` that are not of `best`, and shards that none names.

        The newest is also `latest.pth`, so one always stays.
        """
        if self.keep is not None:
            epochs = {epoch_of(path): path for path in self.run_dir.iterdir()}
            for epoch in sorted(epoch for epoch in epochs if epoch is not None)[: -self.keep]:
                if epoch not in best:
                    epochs[epoch].unlink(missing_ok=True)
        remove_unnamed(self.run_dir)


def best_epochs(state: dict[str, Any]) -> set[int]:
    """Return the epochs that `keep_best` keeps, as the state of the monitor says (see base/monitor.py)."""
    return {int(entry.tolist()[1]) for entry in state.get("monitor", {}).get("top", [])}


def what_is_kept(keep: int | None, keep_best: int) -> str:
    """Return which checkpoints a run keeps, for its log."""
    epochs = "of all epochs" if keep is None else f"of the newest {keep} epochs that are saved"
    best = f", of the {keep_best} best" if keep_best > 1 and keep is not None else ""
    return f"checkpoints that are kept: latest, previous, best, and those {epochs}{best}"


def check_finite(part: Any, run_dir: Path) -> None:
    """Raise NonFiniteError where a step with a finite loss and gradient has made weights infinite.

    Only a module's state is tensors by name; the states of others are not looked at.

    By NumPy: torch would give this thread OpenMP workers of its own, and as soon as there are more of them than cores,
    libgomp lets none wait actively any more, which makes every parallel operation of the training thread slower.
    """
    for name, value in part.items() if isinstance(part, dict) else ():
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            continue
        array = value.numpy() if value.dtype in NUMPY_FLOATS else value.float().numpy()
        if not np.isfinite(array).all():
            raise NonFiniteError(f"{name} is not finite any more; not saved; the last checkpoint in {run_dir} is whole")


def clone_to_cpu(state: Any) -> Any:
    """Return a copy of nested dicts, lists and tuples that shares no tensor with `state`; tensors are on the CPU."""
    return map_tensors(lambda tensor: tensor.detach().to("cpu", copy=True), state)


def link(file: Path, name: str) -> None:
    """Make `name` another name of `file`, atomically; a copy where the file system has no links. Raises OSError."""
    target = file.with_name(name)
    temp = target.with_name(f".{name}.{os.getpid()}.tmp")
    try:
        os.link(file, temp)
    except OSError:
        temp = write_temp(target, file.read_bytes())
    try:
        os.replace(temp, target)
    finally:
        temp.unlink(missing_ok=True)
