"""Shards beside a checkpoint: what is not as it was written, or not of this project, is refused with one message."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, Metadata

from checkpoint.convert import main
from checkpoint.dcp import METADATA_FILE
from checkpoint.file import load_checkpoint, serialise
from checkpoint.parts import eval_weights
from checkpoint.shards import digest_of, remove_unnamed
from utils import CheckpointError

WEIGHT = torch.arange(12.0).view(4, 3)
pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
DATA = "__0_0.distcp"


def save(run_dir: Path, name: str = "latest.pth", directory: str = "shards-1", **changes: Any) -> Path:
    """Write a checkpoint with a weight in shards."""
    shards = run_dir / directory
    dcp.save({"model.weight": WEIGHT}, storage_writer=dcp.FileSystemWriter(shards), no_dist=True)
    files = {file.name: digest_of(file) for file in shards.iterdir()}
    return seal(run_dir / name, {"directory": directory, "files": files, **changes})


def seal(path: Path, shards: Any, rows: int = 4) -> Path:
    """Write the file that names `shards`."""
    position = {"epoch": 1, "step_in_epoch": 0, "global_step": 1}
    model = {"weight": torch.empty(0, rows, 3), "bias": torch.ones(3)}
    path.write_bytes(serialise({"position": position, "environment": {}, "model": model, "shards": shards}))
    return path


def test_the_weights_are_whole_wherever_the_run_is_moved_to(tmp_path: Path) -> None:
    save(tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "moved")
    path, plain = tmp_path / "moved" / "latest.pth", tmp_path / "plain.pth"
    weights = eval_weights(load_checkpoint(path))
    assert torch.equal(weights["weight"], WEIGHT)
    assert torch.equal(weights["bias"], torch.ones(3))
    main([str(path), str(plain)])
    assert torch.equal(load_checkpoint(plain)["model"]["weight"], WEIGHT)
    with pytest.raises(CheckpointError, match="is there already"):
        main([str(path), str(plain)])
    with pytest.raises(CheckpointError, match="has no shards"):
        main([str(plain), str(tmp_path / "other.pth")])


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    path = save(tmp_path)
    file = tmp_path / "shards-1" / DATA
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"shards-1/__0_0.distcp: damaged: the checksum"):
        eval_weights(load_checkpoint(path))
    file.unlink()
    with pytest.raises(CheckpointError, match=r"shards-1/__0_0.distcp is missing; the shards must lie beside it"):
        eval_weights(load_checkpoint(path))


class Attack:
    """Makes a directory when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def with_bytes(metadata: Metadata) -> None:
    """Say that the weight is a pickled object."""
    metadata.state_dict_metadata["model.weight"] = BytesStorageMetadata()


def elsewhere(metadata: Metadata) -> None:
    """Say that the weight is in a file outside."""
    for place in metadata.storage_data.values():
        place.relative_path = "../latest.pth"


@pytest.mark.parametrize("what", ["attack", "bytes", "elsewhere", "list", "garbage"])
def test_metadata_of_a_stranger_runs_nothing(tmp_path: Path, what: str) -> None:
    save(tmp_path)
    file, stolen = tmp_path / "shards-1" / METADATA_FILE, tmp_path / "stolen"
    metadata = pickle.loads(file.read_bytes())
    if what in ("bytes", "elsewhere"):
        {"bytes": with_bytes, "elsewhere": elsewhere}[what](metadata)
    content = {"attack": Attack(stolen), "list": [1]}.get(what, metadata)
    file.write_bytes(b"no pickle" if what == "garbage" else pickle.dumps(content))
    files = {name: digest_of(file.with_name(name)) for name in (DATA, METADATA_FILE)}
    path = seal(tmp_path / "latest.pth", {"directory": "shards-1", "files": files})
    with pytest.raises(CheckpointError, match=r"\.metadata: refused: "):
        eval_weights(load_checkpoint(path))
    assert not stolen.exists()


@pytest.mark.parametrize(
    "shards",
    [
        1,
        {},
        {"directory": "../shards-1", "files": {}},
        {"directory": "shards-1", "files": {"../x": ""}},
        {"directory": "shards-1", "files": 1},
    ],
)
def test_shards_with_other_names_are_refused(tmp_path: Path, shards: Any) -> None:
    with pytest.raises(CheckpointError, match="its shards are not those of this project"):
        eval_weights(load_checkpoint(seal(tmp_path / "latest.pth", shards)))


def test_shapes_that_are_not_in_the_files_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path)
    shards = load_checkpoint(path)["shards"]
    del shards["path"]
    with pytest.raises(CheckpointError, match="shards-1: does not fit: ValueError: Size mismatch"):
        eval_weights(load_checkpoint(seal(path, shards, rows=5)))
    with pytest.raises(CheckpointError, match="shards-1: refused: its tensors are larger than its files"):
        eval_weights(load_checkpoint(seal(path, shards, rows=2**40)))


def test_directories_go_when_no_checkpoint_names_them(tmp_path: Path) -> None:
    save(tmp_path, "checkpoint-epoch1.pth")
    save(tmp_path, "latest.pth", "shards-2")
    save(tmp_path, "latest.pth.superseded", "shards-3")
    save(tmp_path, "model_best.pth", "shards-2-2")
    for name in ("shards-4", ".shards-5.tmp", "shards-6", "shards-of-mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__0_0.distcp").touch()
    (tmp_path / "shards-6" / "mine.txt").touch()
    remove_unnamed(tmp_path)
    left = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert left == {"shards-1", "shards-2", "shards-2-2", "shards-3", "shards-6", "shards-of-mine"}
    (tmp_path / "checkpoint-epoch1.pth").unlink()
    remove_unnamed(tmp_path)
    assert not (tmp_path / "shards-1").exists()
    assert torch.equal(eval_weights(load_checkpoint(tmp_path / "latest.pth"))["weight"], WEIGHT)
