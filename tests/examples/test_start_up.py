"""A signal while train.py starts, to the whole process group: nothing is left half made."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from example_runs import run_train
from helpers import ROOT, status_of

if not hasattr(os, "killpg"):
    pytest.skip("this system has no process groups", allow_module_level=True)

CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_a_signal_to_the_group_during_start_up_leaves_nothing_half_made(seed: int, tmp_path: Path) -> None:
    number = list(CODES)[seed % len(CODES)]
    save_dir = tmp_path / "saved"
    args = ["-c", "config.json", "--set", "data_loader.args.source=digits", "--set", f"trainer.save_dir={save_dir}"]
    args += ["--set", "data_loader.args.num_workers=2", "--set", "trainer.epochs=1000"]
    args += ["--set", "trainer.early_stop=null"]
    command = [sys.executable, "train.py", *args]
    process = subprocess.Popen(
        command, cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    time.sleep(random.Random(seed).uniform(0.2, 6))
    os.killpg(process.pid, number)
    errors = process.communicate(timeout=60)[1]
    # The interpreter has not come to our handlers yet where it dies by the signal itself: a shell says the same code.
    assert process.returncode in (CODES[number], -number)
    assert "Traceback" not in errors or process.returncode == -number
    for run_dir in save_dir.glob("*/*"):
        assert status_of(run_dir)["status"] == "preempted"
        run_train("-r", str(run_dir), "--set", "trainer.epochs=1")
    assert list(save_dir.rglob("*.tmp")) == []
