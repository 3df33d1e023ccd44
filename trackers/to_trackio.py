"""Sends to trackio: into its folder on this machine, or to the server or Space that its environment variables name."""

from __future__ import annotations

import os
from typing import Any

from trackers.lines import Line
from trackers.mirror import RunInfo

QUIET: dict[str, Any] = {"embed": False, "auto_log_gpu": False, "auto_log_cpu": False}
LINE = "line"  # a metric that says which lines are there


class Mirror:
    """One run of trackio."""

    is_live = True

    def __init__(self, run: RunInfo) -> None:
        import trackio

        self._run = run
        self._name = f"{run.name}-{run.key}"
        self._trackio = trackio

    def num_held(self, num_marked: int) -> int:
        """Return how many lines are in trackio's folder; a server cannot be asked, so there the mark counts."""
        if any(os.environ.get(name) for name in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")):
            return num_marked
        from trackio.sqlite_storage import SQLiteStorage

        logs = SQLiteStorage.get_logs(self._run.project, self._name)
        return max((int(log[LINE]) + 1 for log in logs if LINE in log), default=0)

    def send(self, lines: list[Line]) -> None:
        """Send `lines`; only `finish` of trackio says that they have arrived."""
        self._trackio.init(self._run.project, name=self._name, config=self._run.config, resume="allow", **QUIET)
        for line in lines:
            self._trackio.log(line.values | {LINE: line.number}, step=line.global_step)
        self._trackio.finish()

    def finish(self, has_ended: bool) -> None:
        """Nothing is open between two calls of `send`."""
