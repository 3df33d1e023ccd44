"""How long training waits for a checkpoint, and how long writing it takes: python benchmarks/checkpoint_stall.py."""

from __future__ import annotations

import logging
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from utils.checkpoint_writer import CheckpointWriter


def measure(megabytes: int, repeats: int = 9) -> tuple[float, float]:
    """Return the median seconds that `save` blocks and that the write in the background takes."""
    count = megabytes * 250_000 // 16
    position = {"epoch": 1, "step_in_epoch": 1, "global_step": 1}
    state = {"position": position, "model": {f"w{i}": torch.randn(count) for i in range(16)}}
    waits, writes = [], []
    with (
        tempfile.TemporaryDirectory(dir=".") as directory,
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


if __name__ == "__main__":
    logging.disable()
    print(f"threads {torch.get_num_threads()}, {threading.active_count()} Python thread")
    print("| checkpoint | training waits | write in the background | waits / write |\n|---|---|---|---|")
    for megabytes in (1, 10, 44, 200, 500):
        wait, write = measure(megabytes)
        print(f"| {megabytes} MB | {wait * 1e3:.1f} ms | {write * 1e3:.0f} ms | {wait / write:.1%} |", flush=True)
