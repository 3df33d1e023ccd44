"""How long training waits for a checkpoint, and how long writing it takes, against its size."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from checkpoint.writer import CheckpointWriter
from report import Section, table

MEGABYTES = (1, 10, 44, 200, 500)


def part(options: argparse.Namespace) -> Section:
    """Measure each size."""
    rows = []
    for megabytes in MEGABYTES:
        wait, write = measure(megabytes, options.out)
        rows.append([f"{megabytes} MB", f"{wait * 1e3:.1f} ms", f"{write * 1e3:.0f} ms", f"{wait / write:.1%}"])
    text = "Training waits for the copy in memory; checksum, writing and fsync are done in the background."
    header = ["checkpoint", "training waits", "write in the background", "waits / write"]
    return Section("What a checkpoint costs", f"{text}\n\n{table(header, rows)}")


def measure(megabytes: int, out: Path, repeats: int = 9) -> tuple[float, float]:
    """Return the median seconds that `save` blocks and that the write in the background takes."""
    count = megabytes * 250_000 // 16
    position = {"epoch": 1, "step_in_epoch": 1, "global_step": 1}
    state = {
        "model": {f"w{i}": torch.randn(count) for i in range(16)},
        "position": position,
        "monitor": {},
        "config": {"trainer": {"monitor": "off", "epochs": 1}},
    }
    waits, writes = [], []
    with (
        tempfile.TemporaryDirectory(dir=out) as directory,
        CheckpointWriter(Path(directory), keep=None, sync_logs=lambda: None) as writer,
    ):
        for _ in range(repeats):
            started = time.perf_counter()
            writer.save(state)
            saved = time.perf_counter()
            writer.wait()
            waits.append(saved - started)
            writes.append(time.perf_counter() - saved)
    return statistics.median(waits), statistics.median(writes)
