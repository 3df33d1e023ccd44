"""Run directories in numbers, as runs leave them, and broken ones of every kind."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

NOBODY = 2**22 + 1  # no process has this number: Linux ends below it


def make_run(
    root: Path, name: str, run_id: str, *, lr: float = 0.1, losses: tuple[float, ...] = (), **state: Any
) -> Path:
    """Make the directory of a run of one epoch for each of `losses`, with keys of status.json changed; return it."""
    path = root / name / run_id
    path.mkdir(parents=True)
    config = {
        **{"name": name, "tag": None, "seed": 0, "arch": {"type": "Net", "args": {"width": 32}}},
        "optimizer": {"type": "Adam", "args": {"lr": lr}},
        "trainer": {"epochs": len(losses), "monitor": "min val_loss", "save_dir": str(root)},
    }
    best = min(losses, default=None)
    status = {
        **{"status": "completed", "epoch": len(losses), "epochs": len(losses), "pid": NOBODY, "seconds": 7},
        "best": {"metric": "val_loss", "mode": "min", "value": best, "epoch": losses.index(best) + 1} if best else None,
        **{"started": "2026-01-01T12:00:00+00:00", "updated": "2026-01-01T12:00:07+00:00"},
        **{"host": socket.gethostname(), "error": None},
        **state,
    }
    records = [
        {"kind": "epoch", "epoch": i + 1, "global_step": 10 * (i + 1), "loss": 2 * loss, "val_loss": loss}
        for i, loss in enumerate(losses)
    ]
    (path / "config.json").write_text(json.dumps(config))
    (path / "status.json").write_text(json.dumps(status))
    (path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    for file in ("latest.pth", "model_best.pth", "previous.pth", "checkpoint-epoch1.pth"):
        (path / file).write_bytes(b"x" * 1000)
    return path


def _replace(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda path: (path / name).write_bytes(content)


def _empty(path: Path) -> None:
    for file in path.iterdir():
        file.unlink()


def _directory(path: Path) -> None:
    (path / "status.json").unlink()
    (path / "status.json").mkdir()


def _pipe(path: Path) -> None:
    (path / "config.json").unlink()
    os.mkfifo(path / "config.json")


def _link(path: Path) -> None:
    (path / "status.json").unlink()
    (path / "status.json").symlink_to(path / "nowhere")


def _run_is_link(path: Path) -> None:
    _empty(path)
    path.rmdir()
    path.symlink_to(path.parent / "nowhere")


BREAKAGES: dict[str, Callable[[Path], object]] = {
    "status.json: is missing": _empty,
    "status.json: is empty": _replace("status.json", b""),
    "status.json: is not valid JSON": _replace("status.json", b'{"status": "comp'),
    "status.json: is not a JSON object": _replace("status.json", b"[1]"),
    "config.json: is not valid JSON": _replace("config.json", bytes(range(256)) * 100),
    "config.json: is missing": lambda path: (path / "config.json").unlink(),
    "config.json: is not a regular file": _pipe,
    "status.json: is a directory": _directory,
    "status.json: is a link to nowhere": _link,
    "is a symbolic link to nowhere": _run_is_link,
}
