"""A run that an earlier version of this project began, and a signal stopped in an epoch, resumes with today's code.

old_run/ is what that version left behind: CSV data, an average of the weights, accumulated microbatches, a metric of
torchmetrics. old_run_expected.json is what the same version ended with when it resumed the run itself: its bits, where
`round_alike` is called first.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from checkpoint.file import load_checkpoint
from data_loader.csv_data import CsvDataLoader
from example_runs import curves, evaluate, run_train
from helpers import assert_equal, epochs_of, newest, records_of
from model.model import MLP

OLD_RUN = Path(__file__).with_name("old_run")
EXPECTED: dict[str, Any] = json.loads(Path(__file__).with_name("old_run_expected.json").read_text())
IS_SAME_TORCH = torch.__version__ == EXPECTED["torch"]
FINISHED_EPOCHS = 2  # and two optimizer steps of the third
NUM_STEPS = 8  # an epoch


@pytest.fixture
def resumed(tmp_path: Path) -> Path:
    """Return a copy of the run that has been resumed to its end; exactly so with the torch that it was begun with."""
    run_dir = shutil.copytree(OLD_RUN, tmp_path / "run")
    run_train("-r", str(run_dir), *([] if IS_SAME_TORCH else ["--allow-inexact"]))
    return run_dir


def digest(weights: dict[str, Tensor]) -> str:
    """Return the SHA-256 of weights, by name in alphabetical order."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].contiguous().numpy().tobytes())
    return digest.hexdigest()


def round_alike() -> None:
    """Let MKL compute as it does on every CPU; otherwise its kernels, and so the last bits, are those of this one."""
    os.environ["MKL_CBWR"] = "COMPATIBLE"


@pytest.mark.skipif(not IS_SAME_TORCH, reason=f"the bits are those of torch {EXPECTED['torch']}")
@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="the bits are those of MKL")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="MKL looks at the environment once: needs a process that has not")
def test_it_ends_with_the_weights_and_values_of_the_old_code_to_the_bit(tmp_path: Path) -> None:
    from faults import finish

    resumed = shutil.copytree(OLD_RUN, tmp_path / "run")
    assert finish("-r", str(resumed), setup=round_alike) == 0
    checkpoint = newest(resumed)
    assert digest(checkpoint["model"]) == EXPECTED["model_sha256"]
    assert digest(checkpoint["ema"]["model"]) == EXPECTED["ema_sha256"]
    last = {name: value for name, value in epochs_of(resumed)[-1].items() if name in EXPECTED["log"]}
    assert last == EXPECTED["log"]


def test_it_ends_where_the_old_code_did_with_each_step_logged_once(resumed: Path) -> None:
    assert newest(resumed)["position"] == {"epoch": 5, "step_in_epoch": 0, "global_step": 4 * NUM_STEPS}
    records = records_of(resumed)
    assert records[: len(records_of(OLD_RUN))] == records_of(OLD_RUN)
    steps = [record["global_step"] for record in records if record["kind"] == "step"]
    assert steps == list(range(4, 4 * NUM_STEPS + 1, 4))
    assert [record["epoch"] for record in records if record["kind"] == "epoch"] == [1, 2, 3, 4]
    last = {name: value for name, value in records[-1].items() if name in EXPECTED["log"]}
    assert last == pytest.approx(EXPECTED["log"], rel=1e-4)


def test_its_curves_are_continuous(resumed: Path) -> None:
    curves_of_run = curves(resumed)
    for name in ("loss", "mae"):
        for part in ("train", "valid"):
            points, key = curves_of_run[f"{name}/{part}"], f"val_{name}" if part == "valid" else name
            expected = {record["global_step"]: record[key] for record in epochs_of(resumed)}
            assert [step for step, _ in points] == [NUM_STEPS * epoch for epoch in (1, 2, 3, 4)]
            assert dict(points) == pytest.approx(expected)
    assert [step for step, _ in curves_of_run["lr/group0"]] == [NUM_STEPS * epoch for epoch in (1, 2, 3, 4)]


def test_it_is_tested_with_the_values_of_the_old_code(resumed: Path) -> None:
    assert evaluate("-r", str(resumed)) == pytest.approx(EXPECTED["test"], rel=1e-6 if IS_SAME_TORCH else 1e-4)


@pytest.fixture
def old_checkpoint(tmp_path: Path) -> Path:
    """Return a copy of one checkpoint of the run, with nothing else beside it."""
    (tmp_path / "alone").mkdir()
    shutil.copy(OLD_RUN / "checkpoint-epoch2.pth", tmp_path / "alone" / "old.pth")
    return tmp_path / "alone" / "old.pth"


def test_a_single_checkpoint_of_it_can_be_tested(old_checkpoint: Path) -> None:
    measured = evaluate("-c", str(OLD_RUN / "config.json"), "-r", str(old_checkpoint))
    model = MLP(1, [16]).eval()
    model.load_state_dict(load_checkpoint(old_checkpoint)["ema"]["model"])
    args = newest(OLD_RUN)["config"]["data_loader"]["args"]
    rows = CsvDataLoader(**args, training=False).peek(500)
    inputs, targets = rows.batch
    assert rows.num_samples == 500
    error = (model(inputs) - targets).abs()
    loss = torch.where(error < 1, error.square() / 2, error - 0.5)  # SmoothL1Loss
    assert measured == pytest.approx({"loss": loss.mean().item(), "mae": error.mean().item()}, rel=1e-5)


def test_a_single_checkpoint_of_it_can_be_fine_tuned_from(old_checkpoint: Path, tmp_path: Path) -> None:
    """A learning rate of 0 leaves the averaged weights as they are, and so what the old code measured of them."""
    overrides = ["--set", f"trainer.save_dir={tmp_path / 'saved'}", "--lr", "0", "--set", "trainer.epochs=1"]
    run_dir = run_train("-c", str(OLD_RUN / "config.json"), "-r", str(old_checkpoint), *overrides)
    assert run_dir.is_relative_to(tmp_path / "saved")
    assert_equal(dict(newest(run_dir)["model"]), dict(load_checkpoint(old_checkpoint)["ema"]["model"]))
    [epoch] = epochs_of(run_dir)
    before = epochs_of(OLD_RUN)[FINISHED_EPOCHS - 1]
    for name in ("val_loss", "val_mae"):
        assert epoch[name] == pytest.approx(before[name], rel=1e-5)
