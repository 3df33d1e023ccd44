"""The lines of `metrics.jsonl` that a mirror may send: those that the newest checkpoint covers.

What came after it is computed again, equal to the bit, when a killed run resumes; so no line is ever sent that the run
takes back.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from history.files import read_records

SEAL = re.compile(rb"sha256=[0-9a-f]{64} epoch=(\d{12}) step=(\d{12})")  # at the end of a checkpoint
SEAL_BYTES = 7 + 64 + 7 + 12 + 6 + 12


class Line(NamedTuple):
    """A line of metrics.jsonl."""

    number: int  # from 0
    global_step: int
    values: dict[str, float]  # by name: "val_loss" of an epoch, "step/loss" within one


def covered_lines(run_dir: Path) -> list[Line]:
    """Return the lines that `latest.pth` covers; none where there is no checkpoint."""
    position = _position(run_dir / "latest.pth")
    lines: list[Line] = []
    if position is None:
        return lines
    epoch_start = 0  # the global step at which the epoch of the line began
    for number, record in enumerate(read_records(run_dir)):
        kind, epoch, global_step = (record.pop(key) for key in ("kind", "epoch", "global_step"))
        is_covered = epoch < position[0] if kind == "epoch" else (epoch, global_step - epoch_start) <= position
        if not is_covered:
            break
        if kind == "epoch":
            epoch_start = global_step
        prefix = "step/" if kind == "step" else ""
        values = {f"{prefix}{name}": value for name, value in record.items() if value is not None}  # null was NaN
        lines.append(Line(number, global_step, values))
    return lines


def _position(checkpoint: Path) -> tuple[int, int] | None:
    """Return (epoch to train next or in, step in it) of a checkpoint, as its seal says."""
    try:
        with open(checkpoint, "rb") as file:
            file.seek(-SEAL_BYTES, 2)
            seal = SEAL.fullmatch(file.read())
    except OSError:
        return None
    return (int(seal[1]), int(seal[2])) if seal else None
