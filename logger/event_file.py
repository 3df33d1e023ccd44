"""A TensorBoard event file that sorts after the earlier ones, and raises its errors where it is written to."""

from __future__ import annotations

import logging
import os
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter

STAMP = re.compile(r"events\.out\.tfevents\.(\d{10})\..*")
logger = logging.getLogger("run_log")


class EventFile:
    """Replaces tensorboard's EventFileWriter, which opens its file by name for each event and prints tracebacks.

    TensorBoard reads the files of a directory in the order of the times in their names. This one's time is later than
    every other's there, even where the clock was set back or two processes began in one second.
    """

    def __init__(self, logdir: str, max_queue_size: int = 0, flush_secs: int = 0, filename_suffix: str = "") -> None:
        """Make the file in `logdir`; each event is written at once, by a thread. Raises OSError."""
        self._logdir = logdir
        os.makedirs(logdir, exist_ok=True)
        now, latest = int(time.time()), max(map(_stamp, os.listdir(logdir)), default=0)
        if latest > now + 60:
            logger.warning(
                f"the clock is {latest - now} s behind the last event file; points keep the order of their steps"
            )
        stamp, where = max(now, latest + 1), f"{socket.gethostname()}.{os.getpid()}.0"
        self._file = open(Path(logdir, f"events.out.tfevents.{stamp:010d}.{where}{filename_suffix}"), "xb")  # noqa: SIM115
        self._records = RecordWriter(self._file)
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="events")
        self._error: OSError | None = None
        try:
            self.add_event(Event(wall_time=time.time(), file_version="brain.Event:2"))
            self.flush()
        except OSError:
            with suppress(OSError):
                self.close()
            raise

    def get_logdir(self) -> str:
        """Return the directory of the file."""
        return self._logdir

    def add_event(self, event: Any) -> None:
        """Hand an event to the thread. Raises the OSError of an earlier one."""
        self._raise_error()
        self._executor.submit(self._write, event.SerializeToString())

    def flush(self) -> None:
        """Wait until all events are handed to the operating system. Raises OSError."""
        self._executor.submit(self._raise_error).result()

    def close(self) -> None:
        """Write what is left, and close the file. Raises OSError."""
        self._executor.shutdown(wait=True)
        self._file.close()
        self._raise_error()

    def _write(self, data: bytes) -> None:
        if self._error is None:
            try:
                self._records.write(data)
                self._records.flush()
            except OSError as error:
                self._error = error

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error


def _stamp(name: str) -> int:
    found = STAMP.fullmatch(name)
    return int(found.group(1)) if found else 0
