"""The curves of a run, in metrics.jsonl and TensorBoard, continuous across stops and resumes."""

from __future__ import annotations

import json
import logging
import math
import os
import re
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from logger.visualization import TensorboardWriter
from utils.errors import RunDirError, writing_to
from utils.files import make_own

METRICS_FILE = "metrics.jsonl"
RUN = "run"
"""The key of a run's number in `RunLog.sizes` and status.json. Drawn once, it distinguishes the files of runs."""
EVENT_FILE = r"events\.out\.tfevents\.\d{10}\..+\.\d+\.\d+"  # as TensorBoard calls them
logger = logging.getLogger("run_log")


class RunLog:
    """Writes scalars to `metrics.jsonl` and to TensorBoard, on one x-axis: the number of optimizer steps.

    A checkpoint holds `sizes()`, how long each file was then; a resumed run cuts the files back to that and writes on,
    so no step appears twice, and none is missing. A thread writes, so that training does not wait for a slow disk;
    what went wrong is raised by the next call.
    """

    def __init__(
        self,
        log_dir: Path,
        writer: TensorboardWriter,
        number: int,
        sizes: dict[str, int] | None,
        check_held: Callable[[], None],
    ) -> None:
        """Open the files in `log_dir`, that of `writer` too; with `sizes`, cut those of earlier processes back first.

        `number` is the run's. `check_held` raises RunDirError where the directory is no longer this process's, before
        anything more is written. Raises RunDirError.
        """
        self.log_dir = log_dir
        self.number = number
        self._check_held = check_held
        old = re.compile(f".*{EVENT_FILE}")  # an earlier version named them without the number
        self._names = {name for name in sizes or () if old.fullmatch(name)}
        with writing_to(log_dir):
            if sizes is not None:
                self._cut_back(sizes)
            self._metrics = open(log_dir / METRICS_FILE, "a", encoding="utf-8")  # noqa: SIM115  # open while the run is
            self.writer = writer
            self.writer.open(log_dir, f".run{number:x}")
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="log")
        self._pending: deque[Future[None]] = deque()

    def log_step(self, epoch: int, global_step: int, values: dict[str, float]) -> None:
        """Add what one optimizer step gave; the curves are called "step/NAME", of "perf/NAME" "perf/step/NAME"."""
        tags = {name: f"step/{name}".replace("step/perf/", "perf/step/") for name in values}
        self._add({"kind": "step", "epoch": epoch, "global_step": global_step}, values, tags)

    def log_epoch(self, epoch: int, global_step: int, values: dict[str, float]) -> None:
        """Add what an epoch gave; "val_NAME" is the curve "NAME/valid", "NAME" is "NAME/train"; lr and perf stay."""
        tags = {name: curve(name) for name in values}
        self._add({"kind": "epoch", "epoch": epoch, "global_step": global_step}, values, tags)

    def draw(self, draw: Callable[..., None], *args: Any) -> None:
        """Let the thread call `draw`, after what it was handed before; only warn where that fails."""
        self._pending.append(self._executor.submit(self._draw, draw, args))

    def sizes(self) -> dict[str, int]:
        """Hand everything to the operating system; return the length of each file in bytes, and the run's number."""
        self._wait()
        with writing_to(self.log_dir):
            self.writer.flush()
            sizes = {self._name(path): path.stat().st_size for path in self._event_files()}
            return {RUN: self.number, METRICS_FILE: os.fstat(self._metrics.fileno()).st_size} | sizes

    def sync(self) -> None:
        """Put on the disk what `sizes` has counted; may be called from another thread. Raises OSError, RunDirError."""
        self._check_held()
        os.fsync(self._metrics.fileno())
        for path in self._event_files():
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
        self._check_held()
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._metrics.write(json.dumps(where | finite) + "\n")  # NaN becomes null: JSON has no NaN
        self._metrics.flush()
        if self.writer.writer is None:
            return
        for name, value in values.items():
            if tags[name] not in self.writer.tags:  # a curve that the trainer draws itself
                self.writer.writer.add_scalar(tags[name], value, where["global_step"])

    def _draw(self, draw: Callable[..., None], args: tuple[Any, ...]) -> None:
        self._check_held()
        try:
            draw(*args)
        except (OSError, RunDirError):
            raise
        except Exception as error:  # a picture is not worth a run
            logger.warning(f"a figure could not be drawn: {type(error).__name__}: {error}")

    def _event_files(self, is_old: bool = False) -> list[Path]:
        """Return the event files of this run: those with its number in their name, and those that a checkpoint names.

        Where the run `is_old`, of a version that put no number into names, those without one too. `add_scalars` makes
        folders for some.
        """
        ours = re.compile(rf"{EVENT_FILE}(\.run{self.number:x}){'?' if is_old else ''}")
        paths = sorted(self.log_dir.rglob("events.out.tfevents.*"))
        return [path for path in paths if ours.fullmatch(path.name) or self._name(path) in self._names]

    def _name(self, path: Path) -> str:
        return path.relative_to(self.log_dir).as_posix()

    def _cut_back(self, sizes: dict[str, int]) -> None:
        """Bring the files back to `sizes`, and remove those that came later; warn of what is missing."""
        files = {METRICS_FILE: self.log_dir / METRICS_FILE}
        files |= {self._name(path): path for path in self._event_files(is_old=RUN not in sizes)}
        for name in files.keys() - sizes.keys():
            files[name].unlink()
        for name, size in sizes.items():
            if name == RUN:
                continue
            is_there = name in files and files[name].is_file()
            kept = _kept_bytes(files[name], size) if is_there else 0
            if kept < size:
                logger.warning(f"{name!r:.200}: {size - kept:,} of the {size:,} bytes that were logged are lost")
            if is_there:
                make_own(files[name], kept)


def _kept_bytes(path: Path, size: int) -> int:
    """Return how many of the first `size` bytes of a log file are there; of metrics.jsonl, whole lines alone."""
    if path.name != METRICS_FILE:
        return min(size, path.stat().st_size)
    return path.read_bytes()[: max(size, 0)].rfind(b"\n") + 1


def curve(name: str) -> str:
    """Return what the curve of an epoch's value is called."""
    if name.startswith("val_"):
        return f"{name.removeprefix('val_')}/valid"
    return name if name.startswith(("lr/", "perf/")) else f"{name}/train"
