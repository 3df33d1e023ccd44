"""Runs on tables of every kind of column: killed ones go on to the bit, and two processes train as one does."""

from __future__ import annotations

import csv
import random
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from faults import assert_same_run, finish, kill_until_done, signal_once, the_run, whole_run, write_config
from helpers import newest, records_of
from processes import finish_all
from trainer import Trainer

pytestmark = pytest.mark.slow  # whole processes
COLUMNS: dict[str, Any] = {
    "area": {"kind": "number", "missing": "median", "indicator": True},
    "city": {"kind": "category", "missing": "most_frequent", "min_count": 3, "encoding": "embedding"},
    "since": {"kind": "date", "missing": "mean"},
    "garden": "bool",
}
IN_MEMORY, MAPPED = 4.0, 1e-7  # max_memory, in GiB


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a CSV file with gaps, rare labels and dates."""
    draw, path = random.Random(0), tmp_path_factory.mktemp("table") / "houses.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["area", "city", "since", "garden", "price", "size"])
        for i in range(240):
            area = draw.uniform(20, 200)
            row = [f"{area:.1f}", draw.choice(["Ulm", "Bonn", f"rare {i}"]), f"20{10 + i % 15}-03-0{1 + i % 9}"]
            row = [cell if draw.random() > 0.1 else "" for cell in row]
            writer.writerow([*row, draw.choice(["yes", "no"]), f"{3 * area:.0f}", draw.choice(["small", "large"])])
    return path


def config_of(table: Path, save_dir: Path, target: str = "price", **args: Any) -> dict[str, Any]:
    """Return a config of 3 epochs of 5 steps, saving often, with dropout and an average of weights."""
    is_class = target == "size"
    given: dict[str, Any] = {
        "path": str(table),
        "target": target,
        "columns": COLUMNS | ({"size": "class"} if is_class else {}),
    }
    given |= {"batch_size": 32, "validation_split": 0.2, "test_split": 0.2, "cache_dir": f"{save_dir}-cache"}
    return {
        "name": "Houses",
        "n_gpu": 0,
        "arch": {"type": "TableMLP", "args": {"hidden": [8], "dropout": 0.2}},
        "data_loader": {"type": "TableDataLoader", "args": given | args},
        "optimizer": {"type": "AdamW", "args": {"lr": 0.01}},
        "loss": "cross_entropy" if is_class else "mse_loss",
        "metrics": ["accuracy"] if is_class else [{"type": "MeanAbsoluteError", "name": "mae"}],
        "lr_scheduler": {"type": "CosineAnnealingLR", "args": {"T_max": 3}},
        "trainer": {"epochs": 3, "save_dir": str(save_dir), "save_every_steps": 2, "log_every_steps": 1}
        | {"ema_decay": 0.9, "monitor": "min val_loss"},
    }


HOW = [(IN_MEMORY, 0), (IN_MEMORY, 2), (MAPPED, 0), (MAPPED, 2)]  # max_memory, num_workers


@pytest.mark.parametrize(("max_memory", "num_workers"), HOW)
def test_a_killed_run_goes_on_to_the_bit(max_memory: float, num_workers: int, table: Path, tmp_path: Path) -> None:
    how: dict[str, Any] = {"max_memory": max_memory, "num_workers": num_workers}
    expected = whole_run(config_of(table, tmp_path / "whole", **how))
    assert bool(list((tmp_path / "whole-cache").glob("*.npy"))) == (max_memory == MAPPED)
    config = config_of(table, tmp_path / "killed", **how)
    args = ("-c", write_config(config), "--resume-latest")
    assert finish(*args, setup=partial(signal_once, Trainer, "_train_step", signal.SIGKILL, 8)) == -signal.SIGKILL
    assert newest(the_run(config))["position"]["global_step"] < 10
    assert finish(*args) == 0
    assert_same_run(expected, the_run(config))


@pytest.mark.parametrize(("max_memory", "num_workers"), HOW)
def test_a_run_killed_at_any_time_goes_on_to_the_bit(
    max_memory: float, num_workers: int, table: Path, tmp_path: Path
) -> None:
    how: dict[str, Any] = {"max_memory": max_memory, "num_workers": num_workers}
    made = {name: config_of(table, tmp_path / name, "size", **how) for name in ("whole", "killed")}
    for config in made.values():
        config["trainer"] |= {"epochs": 30, "keep_checkpoints": 2}
    expected = whole_run(made["whole"])
    assert kill_until_done(made["killed"], random.Random(f"{max_memory} {num_workers}"), max_kills=6) > 0
    assert_same_run(expected, the_run(made["killed"]))


def run_by(num: int, config: dict[str, Any]) -> Path:
    """Train `config` by so many processes; return its run directory."""
    assert finish_all(num, "-c", write_config(config)) == [0] * num
    return the_run(config)


@pytest.mark.parametrize("max_memory", [IN_MEMORY, MAPPED])
def test_two_processes_compute_the_slices_of_one_to_the_bit(max_memory: float, table: Path, tmp_path: Path) -> None:
    runs = []
    for num in (1, 2):
        config = config_of(table, tmp_path / f"by{num}", max_memory=max_memory)
        config["trainer"] |= {"virtual_ranks": 4, "log_figures": None}  # they show what the first process validates
        runs.append(run_by(num, config))
    assert_same_run(*runs)


@pytest.mark.parametrize("target", ["price", "size"])
def test_data_parallel_training_is_that_of_one_process(target: str, table: Path, tmp_path: Path) -> None:
    runs = []
    for num in (1, 2):
        config = config_of(table, tmp_path / f"by{num}", target)
        config["optimizer"] = {"type": "SGD", "args": {"lr": 0.05, "momentum": 0.9}}  # Adam divides by small gradients
        config["arch"]["args"] |= {"dropout": 0.0, "target_scale": "log"}
        config["loss"] = "log_mse_loss" if target == "price" else "cross_entropy"
        runs.append(run_by(num, config))
    expected, got = (torch.cat([w.flatten() for w in newest(run)["model"].values()]) for run in runs)
    assert (got - expected).norm() <= 1e-6 * expected.norm()
    for before, after in zip(*map(records_of, runs)):
        assert after["loss"] == pytest.approx(before["loss"], rel=1e-5)
