"""Writes checkpoints whose sharded weights no process holds whole: each writes its own, and training goes on."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch.distributed as dist

from checkpoint.shards import digest_of, remove_unnamed, split
from checkpoint.writer import CheckpointWriter, check_finite
from distributed import is_main, rank, world_size
from speed.levers import local_part
from utils.errors import UserError
from utils.files import fsync_dir
from utils.nested import map_tensors

T = TypeVar("T")


class ShardWriter(CheckpointWriter):
    """A CheckpointWriter in every process, called by all alike.

    The shards are on the disk under their final name before the first process writes the file that names them. So a
    kill at any moment leaves the save before valid. An error of one process is raised in all.
    """

    def __init__(self, run_dir: Path, keep: int | None, sync_logs: Callable[[], None], timeout_s: float) -> None:
        """As of CheckpointWriter; `timeout_s` is how long a process waits for the others."""
        super().__init__(run_dir, keep, sync_logs)
        self._timeout = timedelta(seconds=timeout_s)
        self._group: Any = None

    def save(self, state: dict[str, Any], epoch: int | None = None, is_best: bool = False) -> None:
        """Write `state`, whose tensors may be DTensors, as CheckpointWriter does."""
        if self._group is None:  # one of its own: training goes on meanwhile, and exchanges too
            self._group = dist.new_group(backend="gloo", timeout=self._timeout)
        super().save(state, epoch, is_best)

    def _write_file(self, snapshot: dict[str, Any], names: list[str]) -> None:
        from checkpoint.dcp import write

        plain, tensors = split(snapshot)
        name = self._by_all(lambda: self._begin(snapshot))[0]
        temp = self.run_dir / f".{name}.tmp"
        write(temp, tensors, self._group)
        digests = self._by_all(lambda: _digests(temp))
        if not is_main():
            return
        fsync_dir(temp)
        os.rename(temp, self.run_dir / name)
        fsync_dir(self.run_dir)
        files = {file: digest for part in digests for file, digest in part.items()}
        super()._write_file(plain | {"shards": {"directory": name, "files": files}}, names)

    def _begin(self, snapshot: dict[str, Any]) -> str:
        """Check this process's weights; the first one makes the unfinished directory, and returns its later name."""
        for part in map_tensors(local_part, snapshot).values():
            check_finite(part, self.run_dir)
        if not is_main():
            return ""
        remove_unnamed(self.run_dir)  # of a run that was killed
        step = snapshot["position"]["global_step"]
        names = (f"shards-{step}{f'-{number}' if number > 1 else ''}" for number in range(1, 10_000))
        name = next(name for name in names if not (self.run_dir / name).exists())
        (self.run_dir / f".{name}.tmp").mkdir()
        return name

    def _by_all(self, do: Callable[[], T]) -> list[T]:
        """Return what `do` returned in each process; where it raised in one, raise that in all."""
        outcome: T | Exception
        try:
            outcome = do()
        except Exception as error:
            is_known = isinstance(error, OSError | UserError)
            outcome = error if is_known else RuntimeError(f"process {rank()}: {type(error).__name__}: {error}")
        outcomes: list[Any] = [None] * world_size()
        dist.all_gather_object(outcomes, outcome, group=self._group)
        for other in outcomes:
            if isinstance(other, Exception):
                raise other
        return outcomes


def _digests(directory: Path) -> dict[str, str]:
    """Return the SHA-256 of each file that this process wrote, by name; the metadata is the first one's."""
    patterns = [f"__{rank()}_*.distcp", *([".metadata"] if is_main() else [])]
    return {path.name: digest_of(path) for pattern in patterns for path in directory.glob(pattern)}
