"""torchrun starts a run again after a process of it was killed: it ends as if nothing had happened."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from faults import assert_same_run, the_run, wait_until, write_config
from helpers import ROOT
from torchrun import long_config, num_records, torchrun, workers_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="finds torchrun's processes in /proc"),
    pytest.mark.skipif(not (ROOT / "tests" / "examples").is_dir(), reason="trains the examples' data"),
]
NUM_KILLS, MAX_RESTART_S = 10, 60
OPTIONS = ["--standalone", "--nproc-per-node", "2", "--max-restarts", str(NUM_KILLS)]


def restarted(agent: subprocess.Popen[bytes], config: dict[str, Any], old: set[int], until_training: bool) -> float:
    """Return how many seconds it took until two others than `old` are there, or train; fail after MAX_RESTART_S."""
    begin = time.monotonic()
    wait_until(lambda: len(set(workers_of(agent.pid)) - old) == 2, MAX_RESTART_S)
    if until_training:
        num_before = num_records(config)
        wait_until(lambda: num_records(config) > num_before + 10, MAX_RESTART_S)
    return time.monotonic() - begin


def test_ten_kills_change_nothing(tmp_path: Path) -> None:
    expected, config = (long_config(tmp_path / name, 100) for name in ("whole", "killed"))
    assert subprocess.run(torchrun(*OPTIONS, config=write_config(expected)), timeout=120, check=False).returncode == 0
    generator = random.Random(0)
    agent = subprocess.Popen(torchrun(*OPTIONS, config=write_config(config)))
    seconds, workers = [], set[int]()
    try:
        for number in range(NUM_KILLS):
            in_training = number % 2 == 0  # else mostly while the processes start
            seconds.append(restarted(agent, config, workers, in_training))
            time.sleep(generator.uniform(0, 1 if in_training else 4))
            workers = set(workers_of(agent.pid))
            os.kill(generator.choice(sorted(workers)), signal.SIGKILL)
        seconds.append(restarted(agent, config, workers, True))
        assert agent.wait(120) == 0
    finally:
        agent.terminate()
        agent.wait(60)
    assert max(seconds) < MAX_RESTART_S, seconds
    print(f"seconds until the processes are there, or train: {[round(each, 1) for each in seconds]}")
    assert_same_run(the_run(expected), the_run(config))
