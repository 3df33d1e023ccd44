"""Checkpoint files: whole or refused, plain data only, and the newest whole one is found."""

from __future__ import annotations

import io
import os
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from checkpoint.file import _seal, find_checkpoint, load_checkpoint, serialise
from checkpoint.upgrade import FORMAT
from checkpoint.writer import CheckpointWriter
from helpers import assert_equal
from utils import CheckpointError
from utils.weights import load_weights


def state(epoch: int = 5) -> dict[str, Any]:
    """Return a small state with what checkpoints hold."""
    generator = torch.Generator().manual_seed(epoch)
    return {"position": {"epoch": epoch, "step_in_epoch": 0}, "model": {"w": torch.randn(50, 40, generator=generator)}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a checkpoint file."""
    (tmp_path / "a.pth").write_bytes(serialise(state()))
    return tmp_path / "a.pth"


def test_what_was_saved_is_loaded(path: Path) -> None:
    assert_equal(load_checkpoint(path), {"format": FORMAT, **state()})


def test_torch_alone_reads_the_file(path: Path) -> None:
    assert_equal(torch.load(path, weights_only=True)["model"], state()["model"])


def test_every_flipped_bit_of_a_sample_is_noticed(path: Path) -> None:
    data = bytearray(path.read_bytes())
    generator = torch.Generator().manual_seed(0)
    for bit in torch.randint(len(data) * 8, (200,), generator=generator).tolist():
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match="damaged"):
            load_checkpoint(path)
        data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)
    load_checkpoint(path)


def test_every_truncation_of_a_sample_is_noticed(path: Path) -> None:
    data = path.read_bytes()
    for length in [0, 1, *range(100, len(data), 97), len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(CheckpointError, match="damaged"):
            load_checkpoint(path)


def test_the_newest_whole_file_is_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for step in (5, 10, 9):
        (tmp_path / f"checkpoint-epoch{step}.pth").write_bytes(serialise(state(step)))
    assert find_checkpoint(tmp_path).name == "checkpoint-epoch10.pth"
    assert find_checkpoint(tmp_path, prefer="checkpoint-epoch5.pth").name == "checkpoint-epoch5.pth"
    (tmp_path / "checkpoint-epoch10.pth").write_bytes(b"junk")
    assert find_checkpoint(tmp_path).name == "checkpoint-epoch9.pth"
    assert "checkpoint-epoch10.pth: damaged" in caplog.text
    for file in tmp_path.glob("*.pth"):
        file.write_bytes(b"")
    with pytest.raises(CheckpointError, match="none of its 3 checkpoints is whole"):
        find_checkpoint(tmp_path)


class Touch:
    """Its unpickling would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def sealed(content: dict[str, Any], path: Path) -> Path:
    """Write `content` as a stranger could: pickled by torch, with a right seal."""
    buffer = io.BytesIO()
    torch.save({"format": 1, **state(), **content}, buffer)
    path.write_bytes(_seal(buffer.getvalue(), 5, 0))
    return path


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    path = sealed({"evil": Touch(tmp_path / "touched")}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="not plain data"):
        load_checkpoint(path)
    assert not (tmp_path / "touched").exists()


def test_compressed_entries_are_refused(path: Path) -> None:
    bomb = io.BytesIO()
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    path.write_bytes(_seal(bomb.getvalue(), 5, 0))
    with pytest.raises(CheckpointError, match="compressed"):
        load_checkpoint(path)


def test_the_legacy_format_is_refused(path: Path) -> None:
    torch.save(state(), path, _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match="not a checkpoint of this project"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        ({"weight": torch.zeros(2, 3)}, "bias is missing"),
        ({"weight": torch.zeros(2, 3), "bias": torch.zeros(2), "extra": torch.zeros(1)}, "extra is not in the model"),
        ({"weight": torch.zeros(3, 2), "bias": torch.zeros(2)}, r"weight is torch.float32 \[3, 2\]"),
        ({"weight": torch.zeros(2, 3).half(), "bias": torch.zeros(2)}, "weight is torch.float16"),
        ({"weight": [1.0], "bias": torch.zeros(2)}, "weight is not a tensor"),
    ],
)
def test_weights_that_do_not_fit_leave_the_model_alone(weights: dict[str, Any], reason: str) -> None:
    model = nn.Linear(3, 2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=f"here: does not fit the model.*{reason}"):
        load_weights(model, weights, "here")
    assert_equal(before, dict(model.state_dict()))


@pytest.mark.skipif(sys.platform != "linux", reason="counts the threads that Linux lists")
def test_a_save_computes_nothing_with_torch_which_would_start_workers_beside_those_of_training(tmp_path: Path) -> None:
    weight = torch.randn(1 << 20)
    weight.isfinite().all()  # in parallel: this thread's workers are there now
    state = {"position": {"epoch": 1, "step_in_epoch": 1, "global_step": 1}, "model": {"weight": weight}}
    state |= {"monitor": {"best_epoch": 0}, "config": {"trainer": {"epochs": 1, "monitor": "off"}}}
    with CheckpointWriter(tmp_path, keep=None, sync_logs=lambda: None) as writer:
        before = set(os.listdir("/proc/self/task"))
        writer.save(state)
        writer.wait()
        assert len(set(os.listdir("/proc/self/task")) - before) == 1  # the writer's own
