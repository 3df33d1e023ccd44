"""An "auto" batch size is a number before training begins, the largest that fits, and stays with the run."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import torch

import train as train_script
from example_runs import evaluate, run_train, train
from helpers import ROOT, assert_equal, newest
from preflight.batch_size import PROBE, largest_batch_size

LIMITED = """
import resource, sys, torch
import train
from preflight.batch_size import largest_batch_size

config = train.parse_args(["-c", sys.argv[1], "--bs", "1000000"])
trainer = train.build_trainer(config)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[2]) * 2**20, -1))
print(largest_batch_size(trainer))
"""


def test_auto_is_the_largest_power_of_two_with_the_data_and_stays_with_the_run(config: dict[str, Any]) -> None:
    config["lr_scheduler"] = {"type": "OneCycleLR", "interval": "step", "args": {"max_lr": 0.01, "total_steps": 9}}
    config["data_loader"]["args"]["batch_size"] = "auto"  # 1,295 samples to train on
    run_dir = train(config)
    assert json.loads((run_dir / "config.json").read_text())["data_loader"]["args"]["batch_size"] == 1024
    assert newest(run_dir)["position"]["global_step"] == 4
    resumed = run_train("-r", str(run_dir), "--set", "trainer.epochs=3")
    config["data_loader"]["args"]["batch_size"] = 1024
    assert_equal(newest(train(config, "--set", "trainer.epochs=3"))["model"], newest(resumed)["model"])
    assert evaluate("-r", str(run_dir)).keys() == {"loss", "accuracy", "top_k_acc"}


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space, which Linux alone enforces")
def test_memory_that_runs_out_ends_the_search(config: dict[str, Any], tmp_path: Any) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    sizes = []
    for megabytes in (40, 160):
        command = [sys.executable, "-c", LIMITED, str(path), str(megabytes)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        sizes.append(int(done.stdout.splitlines()[-1]))
    assert 1 < sizes[0] < sizes[1] <= 1024
    assert all(size & (size - 1) == 0 for size in sizes)


def test_an_error_that_is_not_of_memory_is_not_hidden(config: dict[str, Any], tmp_path: Any) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    trainer = train_script.build_trainer(train_script.parse_args(["-c", str(path), "--bs", str(PROBE)]))
    trainer.model.conv1 = torch.nn.Conv2d(7, 10, 5)
    with pytest.raises(RuntimeError, match="channels"):
        largest_batch_size(trainer)
