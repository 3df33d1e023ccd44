"""Sends to Weights & Biases; WANDB_MODE=offline writes files for `wandb sync` instead, when training stops."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from trackers.lines import Line
from trackers.mirror import FOLDER, RunInfo

QUIET: dict[str, Any] = {  # wandb would send code, git state, packages, the machine and what is printed, too
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "save_code": False,
    "silent": True,
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
}


class Mirror:
    """One run of wandb, whose own step is the number of the line: what comes twice is dropped there."""

    def __init__(self, run: RunInfo) -> None:
        import wandb

        self._wandb = wandb
        self._run = run
        self._open: Any = None
        self.is_live = os.environ.get("WANDB_MODE") != "offline"

    def num_held(self, num_marked: int) -> int:
        """Return how many lines the server has; offline, those before the part that was not finished."""
        if self.is_live:
            self._start(self._run.directory / FOLDER)
            return int(self._open.starting_step)
        for part in (self._run.directory / FOLDER).glob("wandb-part-*"):
            if int(part.name.rsplit("-", 1)[1]) >= num_marked:
                shutil.rmtree(part)
        return num_marked

    def send(self, lines: list[Line]) -> None:
        """Send `lines`; offline, as a part of their own, which counts when the mark says that it is whole."""
        if not self.is_live:
            self._start(self._run.directory / FOLDER / f"wandb-part-{lines[0].number}")
        for line in lines:
            self._open.log(line.values | {"global_step": line.global_step}, step=line.number)
        if not self.is_live:
            self.finish(True)

    def finish(self, has_ended: bool) -> None:
        """Close the run, with what is still on its way."""
        if self._open is not None:
            self._open.finish(exit_code=0 if has_ended else 1)
            self._open = None

    def _start(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._open = self._wandb.init(
            project=self._run.project,
            id=self._run.key,
            name=self._run.name,
            config=self._run.config,
            dir=str(directory),
            resume="allow",
            settings=self._wandb.Settings(**QUIET),
        )
        self._open.define_metric("*", step_metric="global_step")
