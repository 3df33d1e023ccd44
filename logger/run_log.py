"""The curves of a run, in metrics.jsonl and TensorBoard: one line, whatever stops and resumes lay between."""

from __future__ import annotations

import json
import math
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from logger.visualization import TensorboardWriter
from utils.errors import RunDirError, writing_to

METRICS_FILE = "metrics.jsonl"


class RunLog:
    """Writes scalars to `metrics.jsonl` and to TensorBoard, on one x-axis: the number of optimizer steps.

    A checkpoint holds `sizes()`, how long each file was then; a resumed run cuts the files back to that and writes on,
    so no step appears twice, and none is missing. A thread writes, so that training does not wait for a slow disk;
    what went wrong is raised by the next call.
    """

    def __init__(self, log_dir: Path, writer: TensorboardWriter, sizes: dict[str, int] | None = None) -> None:
        """Open the files in `log_dir`, that of `writer` too; with `sizes`, cut those of earlier processes back first.

        Raises RunDirError.
        """
        self.log_dir = log_dir
        with writing_to(log_dir):
            if sizes is not None:
                _cut_back(log_dir, sizes)
            self._metrics = open(log_dir / METRICS_FILE, "a", encoding="utf-8")  # noqa: SIM115  # open while the run is
            self.writer = writer
            self.writer.open(log_dir)
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="log")
        self._pending: deque[Future[None]] = deque()

    def log_step(self, epoch: int, global_step: int, values: dict[str, float]) -> None:
        """Add what one optimizer step gave; the curves are called "step/NAME"."""
        tags = {name: f"step/{name}" for name in values}
        self._add({"kind": "step", "epoch": epoch, "global_step": global_step}, values, tags)

    def log_epoch(self, epoch: int, global_step: int, values: dict[str, float]) -> None:
        """Add what an epoch gave; "val_NAME" is the curve "NAME/valid", "NAME" is "NAME/train"; lr and perf stay."""
        tags = {name: _tag(name) for name in values}
        self._add({"kind": "epoch", "epoch": epoch, "global_step": global_step}, values, tags)

    def sizes(self) -> dict[str, int]:
        """Hand everything to the operating system; return the length of each file in bytes, by name."""
        self._wait()
        with writing_to(self.log_dir):
            self.writer.flush()
            files = _log_files(self.log_dir)
            return {path.relative_to(self.log_dir).as_posix(): path.stat().st_size for path in files}

    def sync(self) -> None:
        """Put on the disk what `sizes` has counted; may be called from another thread. Raises OSError."""
        for path in _log_files(self.log_dir):
            with open(path, "r+b") as file:  # Windows syncs what is open for writing
                os.fsync(file.fileno())

    def __enter__(self) -> RunLog:
        """Return self."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Flush and close the files; where something went wrong before, let that be what is reported."""
        self._executor.shutdown(wait=True)
        with suppress(*[RunDirError] if error else []), writing_to(self.log_dir):
            self._metrics.close()
            self.writer.close()
            self._wait()

    def _add(self, where: dict[str, Any], values: dict[str, float], tags: dict[str, str]) -> None:
        """Hand a line of metrics.jsonl, and a point for each of its curves, to the thread; raise what it failed at."""
        while self._pending and self._pending[0].done():
            self._raise_error(self._pending.popleft())
        self._pending.append(self._executor.submit(self._write, where, values, tags))

    def _wait(self) -> None:
        while self._pending:
            self._raise_error(self._pending.popleft())

    def _raise_error(self, written: Future[None]) -> None:
        with writing_to(self.log_dir):
            written.result()

    def _write(self, where: dict[str, Any], values: dict[str, float], tags: dict[str, str]) -> None:
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._metrics.write(json.dumps(where | finite) + "\n")  # NaN becomes null: JSON has no NaN
        self._metrics.flush()
        if self.writer.writer is None:
            return
        for name, value in values.items():
            if tags[name] not in self.writer.tags:  # a curve that the trainer draws itself
                self.writer.writer.add_scalar(tags[name], value, where["global_step"])


def _tag(name: str) -> str:
    if name.startswith("val_"):
        return f"{name.removeprefix('val_')}/valid"
    return name if name.startswith(("lr/", "perf/")) else f"{name}/train"


def _log_files(log_dir: Path) -> list[Path]:
    return sorted([*log_dir.rglob("events.out.tfevents.*"), *log_dir.glob(METRICS_FILE)])  # add_scalars makes folders


def _cut_back(log_dir: Path, sizes: dict[str, int]) -> None:
    for path in _log_files(log_dir):
        size = sizes.get(path.relative_to(log_dir).as_posix())
        if size is None:
            path.unlink()
        elif path.stat().st_size > size:
            os.truncate(path, size)
