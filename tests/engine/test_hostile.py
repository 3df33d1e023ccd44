"""A checkpoint that is damaged, or made by a stranger: never loaded wrong, nothing executed, no memory filled."""

from __future__ import annotations

import io
import os
import pickle
import random
import resource
import struct
import subprocess
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import toy_runs
from checkpoint.file import BEST, _seal, find_checkpoint, load_checkpoint
from toy_runs import small_config, train
from utils import CheckpointError

pytestmark = pytest.mark.e2e  # whole runs


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a real run of 1 epoch."""
    return train(small_config(tmp_path_factory.mktemp("runs") / "saved", trainer__epochs=1))


def flip_bit(data: bytearray, generator: random.Random) -> None:
    data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)


def truncate(data: bytearray, generator: random.Random) -> None:
    del data[generator.randrange(len(data)) :]


def zero_page(data: bytearray, generator: random.Random) -> None:
    start = generator.randrange(len(data) // 4096) * 4096
    data[start : start + 4096] = bytes(4096)


def zero_tail(data: bytearray, generator: random.Random) -> None:
    start = generator.randrange(len(data))
    data[start:] = bytes(len(data) - start)


@pytest.mark.parametrize("damage", [flip_bit, truncate, zero_page, zero_tail])
def test_damage_is_never_loaded_and_the_checkpoint_before_is_taken(
    damage: Callable[[bytearray, random.Random], None], run: Path, tmp_path: Path
) -> None:
    newest, before = (run / "latest.pth").read_bytes(), (run / "previous.pth").read_bytes()
    (tmp_path / "previous.pth").write_bytes(before)
    expected = load_checkpoint(tmp_path / "previous.pth")["position"]
    generator, num_damaged = random.Random(damage.__name__), 0
    while num_damaged < 200:
        data = bytearray(newest)
        damage(data, generator)
        if data == newest:  # zeros over zeros
            continue
        num_damaged += 1
        (tmp_path / "latest.pth").write_bytes(data)
        with pytest.raises(CheckpointError, match="damaged"):
            load_checkpoint(tmp_path / "latest.pth")
        assert find_checkpoint(tmp_path).name == "previous.pth"
    assert load_checkpoint(find_checkpoint(tmp_path))["position"] == expected


def test_a_run_falls_back_goes_on_and_keeps_the_damaged_file(run: Path, tmp_path: Path) -> None:
    config = small_config(tmp_path / "saved", trainer__epochs=2)
    run_dir = train(config)
    for name in ("latest.pth", "checkpoint-epoch2.pth", BEST):
        with open(run_dir / name, "r+b") as file:
            file.write(b"damage")
    toy_runs.run("-r", str(run_dir))
    assert load_checkpoint(run_dir / "latest.pth")["position"]["epoch"] == 3
    for path in run_dir.glob("*.pth"):
        path.write_bytes(b"")
    before = {path: path.read_bytes() for path in run_dir.iterdir()}
    with pytest.raises(CheckpointError, match=r"none of its \d checkpoints is whole"):
        toy_runs.run("-r", str(run_dir))
    assert {path: path.read_bytes() for path in run_dir.iterdir()} == before


class Call:
    """Its unpickling calls a function."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def nested(depth: int) -> list[Any]:
    """Return a list in a list in a list."""
    result: list[Any] = []
    for _ in range(depth):
        result = [result]
    return result


def with_path(state: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return a copy of `state` with one key changed."""
    *parents, last = (int(part) if part.isdigit() else part for part in path.split("/"))
    copy: dict[Any, Any] = dict(state)
    node = copy
    for parent in parents:
        node[parent] = node[parent].copy()
        node = node[parent]
    node[last] = value
    return copy


CODE: dict[str, Callable[[Path], Any]] = {
    "Path.touch": lambda path: Call(Path.touch, path),
    "os.system": lambda path: Call(os.system, f"touch {path}"),
    "subprocess": lambda path: Call(subprocess.call, ["touch", str(path)]),
    "eval": lambda path: Call(eval, f"open({str(path)!r}, 'w')"),
    "exec": lambda path: Call(exec, f"open({str(path)!r}, 'w')"),
    "open": lambda path: Call(open, str(path), "w"),
    "torch.save": lambda path: Call(torch.save, [], str(path)),
    "nested torch.load": lambda path: Call(torch.load, io.BytesIO(pickle.dumps(Call(Path.touch, path)))),
    "getattr": lambda path: Call(getattr, Path, "touch"),
}
SPARSE = torch.sparse_coo_tensor(
    torch.zeros(2, 0, dtype=torch.int64), torch.zeros(0), (2**20, 2**20), check_invariants=True
)
DOUBLED: list[Any] = []
for _ in range(30):
    DOUBLED = [DOUBLED, DOUBLED]
WRONG: dict[str, tuple[str, Any]] = {
    "weights of another shape": ("model/hidden.weight", torch.zeros(8, 5)),
    "weights of another dtype": ("model/hidden.weight", torch.zeros(8, 4, dtype=torch.float64)),
    "a weight missing": ("model", OrderedDict()),
    "a huge view of one number": ("model/hidden.weight", torch.zeros(1).expand(1_000_000, 1_000_000)),
    "a sparse tensor of huge size": ("model/hidden.weight", SPARSE),
    "optimizer states of another shape": ("optimizer/state/0/exp_avg", torch.zeros(10_000)),
    "an optimizer without groups": ("optimizer/param_groups", []),
    "a scheduler with an attribute more": ("lr_scheduler/step", 1),
    "a position of text": ("position/epoch", "one"),
    "a position before all epochs": ("position/epoch", -(10**6)),
    "a learning rate of text": ("optimizer/param_groups/0/lr", "x"),
    "a best value beyond floats": ("monitor/best", 10**400),
    "a list that doubles thirty times": ("log", DOUBLED),
    "a gigabyte of nothing": ("log", bytearray(1)),
    "random states that are none": ("rng", [{"torch": torch.zeros(3), "numpy": (), "python": (), "cuda": None}]),
    "metrics of another shape": ("train_metrics/totals/loss", torch.zeros(7)),
    "a config that is none": ("config", ["a"]),
    "log files elsewhere": ("logs", {"../../elsewhere": "x"}),
    "lists nested beyond all depth": ("log", nested(100_000)),
}


@pytest.mark.parametrize("what", CODE)
def test_code_in_a_checkpoint_is_never_run(
    what: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    touched = tmp_path / "touched"
    state = load_checkpoint(run / "latest.pth") | {"log": CODE[what](touched)}
    refused(sealed(state), run, tmp_path, "not plain data")
    assert not touched.exists()


@pytest.mark.parametrize("what", WRONG)
def test_what_does_not_fit_is_refused_before_it_is_loaded(
    what: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    path, value = WRONG[what]
    state = load_checkpoint(run / "latest.pth")
    try:
        data = sealed(with_path(state, path, value))
    except RecursionError:  # Python's own pickler gives up; the pickle that it would have written is this one
        data = sealed(state, pickled=b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".")
    refused(data, run, tmp_path, ": ")


def bomb(compression: int, size: int) -> bytes:
    """Return a small zip of very many zeros."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive, archive.open("archive/data.pkl", "w") as file:
        for _ in range(size // 2**20):
            file.write(bytes(2**20))
    return buffer.getvalue()


def lying_zip() -> bytes:
    """Return a zip whose directory claims a stored entry of 3 GB."""
    data = bytearray(bomb(zipfile.ZIP_STORED, 2**20))
    directory = data.rindex(b"PK\x01\x02")
    struct.pack_into("<II", data, directory + 20, 3 * 2**30, 3 * 2**30)
    return bytes(data)


@pytest.mark.parametrize(
    "make",
    [
        lambda: bomb(zipfile.ZIP_DEFLATED, 2**27),
        lambda: bomb(zipfile.ZIP_BZIP2, 2**26),
        lying_zip,
        lambda: legacy(),
        lambda: b"",
        lambda: b"PK\x05\x06" + bytes(18),
        lambda: random.Random(0).randbytes(100_000),
        lambda: b"\x1f\x8b" + bytes(1000),
    ],
    ids=["deflate bomb", "bzip2 bomb", "lying sizes", "legacy", "nothing", "empty zip", "noise", "gzip"],
)
def test_what_is_no_checkpoint_is_refused_with_little_memory(
    make: Callable[[], bytes], run: Path, tmp_path: Path
) -> None:
    data = make()
    plain, closed = data, data
    if data[-22:-18] + data[-2:] == b"PK\x05\x06\0\0":
        closed = _seal(data, 5, 0)  # a stranger can compute a checksum too
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for content in (plain, closed):
        refused(content, run, tmp_path, ": ")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024  # KiB


def legacy() -> bytes:
    """Return a checkpoint in the format of torch < 1.6."""
    buffer = io.BytesIO()
    torch.save({"format": 1}, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def sealed(state: dict[str, Any], pickled: bytes | None = None) -> bytes:
    """Return the bytes of a checkpoint with a right checksum, as a stranger could make it."""
    buffer = io.BytesIO()
    if pickled is None:
        torch.save(state, buffer)
    else:
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("archive/data.pkl", pickled)
            archive.writestr("archive/version", "3\n")
    return _seal(buffer.getvalue(), 10**6, 0)


def refused(data: bytes, run: Path, tmp_path: Path, reason: str) -> None:
    """Assert that a run refuses to go on from `data`, in one line, and changes nothing beside it."""
    run_dir = tmp_path / "run"
    run_dir.mkdir(exist_ok=True)
    (run_dir / "config.json").write_bytes((run / "config.json").read_bytes())
    (run_dir / "latest.pth").write_bytes(data)
    (run_dir / "metrics.jsonl").write_bytes((run / "metrics.jsonl").read_bytes())
    with pytest.raises(CheckpointError, match=reason) as caught:
        toy_runs.run("-r", str(run_dir / "latest.pth"))
    assert str(caught.value).startswith(str(run_dir))
    assert "\n" not in str(caught.value)
    names = {path.name for path in run_dir.iterdir()} - {".lock"}
    assert names == {"config.json", "latest.pth", "metrics.jsonl"}
    assert (run_dir / "metrics.jsonl").read_bytes() == (run / "metrics.jsonl").read_bytes()
