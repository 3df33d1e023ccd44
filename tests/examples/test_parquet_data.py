"""Parquet data comes as it stands in the files, each row once an epoch, in bounded memory, and mistakes by place."""

from __future__ import annotations

import builtins
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from base.share import Slices
from data_loader.csv_data import CsvDataLoader
from data_loader.make_parquet import write_shards
from data_loader.make_quadratic import NOISE_VARIANCE
from data_loader.parquet_data import ParquetBatches, ParquetDataLoader
from example_runs import evaluate, run_train, train
from faults import assert_same_run, the_run
from helpers import ROOT, newest
from tables.parquet_files import ParquetTable
from trainer import Trainer
from utils import ConfigError, DataError, Stopped

SIZES = (700, 0, 1301, 90, 5000)  # rows of the shards
GROUP_ROWS = (97, 10, 400, 1000, 251)
NUM_ROWS = sum(SIZES)
SMALL = 0.00013  # GiB: three blocks of ragged(), of one row group each


def write(path: Path, columns: dict[str, Any], group_rows: int = 1000, **kwargs: Any) -> str:
    """Write a Parquet file; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=group_rows, **kwargs)
    return str(path)


def rows_of(start: int, size: int) -> dict[str, Any]:
    """Return columns of which `id` counts all rows."""
    ids = np.arange(start, start + size)
    return {"id": ids, "half": (ids / 2).astype(np.float64), "y": -ids.astype(np.float32)}


@pytest.fixture
def ragged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a directory of shards whose row groups have many sizes, each a block."""
    monkeypatch.setattr("data_loader.parquet_data.BLOCK_BYTES", 1)
    starts = np.cumsum((0, *SIZES))
    for number, (start, size, rows) in enumerate(zip(starts, SIZES, GROUP_ROWS)):
        write(tmp_path / "rows" / f"part-{number}.parquet", rows_of(start, size), rows)
    return str(tmp_path / "rows")


def load(path: str, batch_size: int = 64, **kwargs: Any) -> ParquetDataLoader:
    """Load the files at `path` with windows of few blocks, so that an epoch has several."""
    return ParquetDataLoader(path, batch_size, **{"max_memory": SMALL, **kwargs})


def batches_of(loader: ParquetDataLoader, epoch: int = 1, first_step: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Return the batches of an epoch."""
    return [step[0].batch for step in loader.epoch_steps(epoch, first_step, seed=3)]


def table(loader: Any) -> Tensor:
    """Return the training rows in their own order, features then target."""
    return torch.cat([torch.cat(batch, dim=1) for batch in loader.train_samples(333)])


def assert_same(one: list[tuple[Tensor, Tensor]], other: list[tuple[Tensor, Tensor]]) -> None:
    assert len(one) == len(other)
    assert all(torch.equal(a, b) for x, y in zip(one, other) for a, b in zip(x, y))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than this machine has cores
@pytest.mark.parametrize("num_workers", [0, 1, 2, 3])
def test_each_row_comes_once_an_epoch_in_the_same_batches_with_any_number_of_workers(
    ragged: str, num_workers: int
) -> None:
    loader = load(ragged, num_workers=num_workers)
    dataset = loader.dataset
    assert isinstance(dataset, ParquetBatches)
    assert 1 < dataset.window_blocks < len(dataset.blocks) / 4
    for epoch in (1, 2):
        batches = batches_of(loader, epoch)
        ids = torch.cat([inputs[:, 0] for inputs, _ in batches])
        assert torch.equal(ids.sort().values, torch.arange(NUM_ROWS).float())
        assert all(torch.equal(inputs[:, 1], inputs[:, 0] / 2) for inputs, _ in batches)
        assert all(torch.equal(targets, -inputs[:, :1]) for inputs, targets in batches)
        assert {batch.dtype for pair in batches for batch in pair} == {torch.float32}
        assert_same(batches, batches_of(load(ragged), epoch))
        assert not torch.equal(ids, torch.cat([inputs[:, 0] for inputs, _ in batches_of(load(ragged), 3)]))


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("first_step", [1, 17, 50, 110])
def test_a_start_in_the_middle_of_an_epoch_gives_exactly_the_remaining_batches(
    ragged: str, num_workers: int, first_step: int
) -> None:
    assert_same(
        batches_of(load(ragged, num_workers=num_workers), 2, first_step), batches_of(load(ragged), 2)[first_step:]
    )


def test_the_order_is_mixed_within_windows_and_over_the_shards(ragged: str) -> None:
    loader = load(ragged, max_memory=0.25)
    ids = torch.cat([inputs[:, 0] for inputs, _ in batches_of(loader)])
    assert (ids[:64].long() // 1000).unique().numel() > 4
    assert ids[:64].diff().abs().median() > 500


@pytest.mark.parametrize("is_shuffled", [True, False])
def test_a_row_group_is_decoded_once_an_epoch(ragged: str, is_shuffled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: Counter[Any] = Counter()
    original = ParquetTable.read

    def read(self: ParquetTable, shard: Any, groups: range, *args: Any, **kwargs: Any) -> None:
        decoded.update((shard.name, group) for group in groups)
        original(self, shard, groups, *args, **kwargs)

    monkeypatch.setattr(ParquetTable, "read", read)
    loader = load(ragged, shuffle=is_shuffled, batch_size=50)
    batches_of(loader)
    assert isinstance(loader.dataset, ParquetBatches)
    assert len(decoded) == len(loader.dataset.blocks)
    assert set(decoded.values()) == {1}


def test_a_batch_of_more_blocks_than_are_kept_is_right_all_the_same(ragged: str) -> None:
    dataset = load(ragged).dataset
    indices = torch.randperm(NUM_ROWS, generator=torch.Generator().manual_seed(0))
    for some in indices.split(2000):
        inputs, targets = dataset.__getitems__(some)
        assert torch.equal(inputs[:, 0], some.float())
        assert torch.equal(targets[:, 0], -some.float())


def test_small_row_groups_of_a_file_are_decoded_together(tmp_path: Path) -> None:
    loader = load(write(tmp_path / "a.parquet", rows_of(0, 5000), 10), max_memory=0.25)
    assert isinstance(loader.dataset, ParquetBatches)
    assert [len(groups) for _, groups in loader.dataset.blocks] == [500]
    assert torch.equal(table(loader)[:, 0], torch.arange(5000.0))


def test_rows_splits_and_batches_are_those_of_the_same_csv_file(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(3000, 3))
    np.savetxt(tmp_path / "t.csv", values, delimiter=",", header="a,b,y", comments="", fmt="%.17g")
    path = write(tmp_path / "t.parquet", dict(zip("aby", values.T)), 3000)
    csv = CsvDataLoader(str(tmp_path / "t.csv"), "y", 64, False, 0.2)
    parquet = ParquetDataLoader(path, 64, False, 0.2)
    assert torch.equal(table(parquet), table(csv))
    assert torch.equal(parquet.train_indices(), csv.train_indices())
    assert_same(list(parquet), list(csv))
    one, other = parquet.split_validation(), csv.split_validation()
    assert one is not None
    assert other is not None
    assert_same(list(one), list(other))


def test_a_validation_split_is_disjoint_and_the_same_for_each_split_seed(ragged: str) -> None:
    loader = load(ragged, validation_split=0.25)
    held = loader.split_validation()
    assert held is not None
    ids = torch.cat([inputs[:, 0] for inputs, _ in [*batches_of(loader), *held]])
    assert torch.equal(ids.sort().values, torch.arange(NUM_ROWS).float())
    assert torch.equal(loader.valid_indices(), load(ragged, validation_split=0.25).valid_indices())
    assert not torch.equal(loader.valid_indices(), load(ragged, validation_split=0.25, split_seed=1).valid_indices())
    assert loader.dataset.num_bytes() is None


@pytest.mark.parametrize(
    ("kwargs", "features", "target"),
    [
        ({}, ["id", "half"], "y"),
        ({"target": "id"}, ["half", "y"], "id"),
        ({"features": ["y"], "target": "half"}, ["y"], "half"),
        ({"features": ["half", "id"]}, ["half", "id"], "y"),
    ],
)
def test_the_last_column_is_the_target_and_the_others_features_unless_named(
    ragged: str, kwargs: dict[str, Any], features: list[str], target: str
) -> None:
    loader = load(ragged, **kwargs)
    columns = rows_of(0, NUM_ROWS)
    assert loader.resolved_args == {"features": features, "target": target}
    expected = np.stack([columns[name] for name in [*features, target]], axis=1).astype(np.float32)
    assert torch.equal(table(loader), torch.from_numpy(expected))


@pytest.mark.parametrize(
    "kind", [*(f"{u}int{2**i}" for u in ("", "u") for i in range(3, 7)), "halffloat", "float", "double"]
)
@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
def test_every_kind_of_number_comes_as_float32(tmp_path: Path, kind: str, compression: str) -> None:
    values = pa.array([0, 1, 100, 127], pa.float64()).cast(kind)
    path = write(tmp_path / "data.parquet", {"a": values, "y": values}, 3, compression=compression)
    assert table(load(path)).tolist() == [[value, value] for value in (0, 1, 100, 127)]


def test_test_and_validation_files_have_the_columns_of_the_config(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", rows_of(0, 100))
    other = write(tmp_path / "b.parquet", dict(reversed(rows_of(100, 50).items())))
    held = load(path, valid_path=other).split_validation()
    assert held is not None
    assert torch.cat([inputs[:, 0] for inputs, _ in held]).tolist() == list(range(100, 150))
    args = load(path).resolved_args
    test = load(path, training=False, test_path=other, validation_split=0.5, **args)
    assert [inputs[:, 0].tolist() for inputs, _ in test] == [list(range(100, 150))]
    with pytest.raises(DataError, match=r"a\.parquet: data_loader\.args\.test_path is not given"):
        load(path, training=False)


@pytest.mark.parametrize("scheme", ["memory", "file"])
def test_a_url_is_read_by_fsspec_also_in_workers(ragged: str, scheme: str) -> None:
    url = f"memory://{Path(ragged).name}" if scheme == "memory" else f"file://{ragged}"
    if scheme == "memory":
        fsspec.filesystem("memory").put(ragged, "/rows", recursive=True)
    assert_same(batches_of(load(url, num_workers=2)), batches_of(load(ragged)))
    assert load(url).fingerprint() == load(ragged).fingerprint()


def test_workers_that_are_not_forked_read_the_same(ragged: str) -> None:
    import pickle

    dataset = load(ragged).dataset
    dataset.__getitems__(torch.arange(100))
    copy = pickle.dumps(dataset)
    assert len(copy) < 20_000
    assert_same([pickle.loads(copy).__getitems__([5, 3000])], [dataset.__getitems__([5, 3000])])


def test_the_fingerprint_is_that_of_the_content_wherever_it_lies(ragged: str, tmp_path: Path) -> None:
    first = load(ragged).fingerprint()
    Path(ragged).rename(tmp_path / "moved")
    moved = tmp_path / "moved"
    assert load(f"{moved}/").fingerprint() == first
    write(moved / "part-3.parquet", rows_of(2002, 90), 1000)
    second = load(str(moved)).fingerprint()
    (moved / "part-3.parquet").rename(moved / "part-9.parquet")
    assert len({first, second, load(str(moved)).fingerprint()}) == 3


def test_files_are_read_by_name_also_in_folders_but_none_that_is_half_written(tmp_path: Path) -> None:
    for start, name in enumerate(["a/1.parquet", "a/2.parquet", "b.parquet"]):
        write(tmp_path / name, rows_of(10 * start, 10))
    for name in ["_temporary/c.parquet", ".d.parquet", "_metadata", "notes.txt"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("no table")
    assert table(load(str(tmp_path)))[:, 0].tolist() == list(range(30))


@pytest.mark.skipif(sys.platform != "linux", reason="counts open files by /proc")
def test_no_file_stays_open(ragged: str) -> None:
    before = len(os.listdir("/proc/self/fd"))
    loader = load(ragged)
    batches_of(loader)
    assert len(os.listdir("/proc/self/fd")) == before


# Mistakes.


def error_of(path: str, kind: type[Exception] = DataError, **kwargs: Any) -> str:
    """Return what loading and reading all rows complains of."""
    with pytest.raises(kind) as caught:
        table(load(path, max_memory=0.25, **kwargs))
    return str(caught.value)


Y = [1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize("has_statistics", [True, False])
@pytest.mark.parametrize(
    ("columns", "kwargs", "expected"),
    [
        ({"a": Y, "b": Y}, {"target": "y"}, "has no column 'y'; allowed: a, b"),
        ({"alcohol": Y, "y": Y}, {"features": ["alcohl"]}, "has no column 'alcohl'; did you mean 'alcohol'?"),
        (
            {"a": ["x", "y", "z", "w"], "y": Y},
            {},
            "column 'a' is string; integers and floats are allowed; `features` may leave it out",
        ),
        ({"a": Y, "y": [True] * 4}, {}, "column 'y' is bool; integers and floats are allowed"),
        ({"a": [1, None, 3, 4], "y": Y}, {}, "row group 0, row 1, column 'a': a null is not a finite number"),
        ({"a": Y, "y": [1.0, 2.0, 3.0, None]}, {}, "row group 1, row 1, column 'y': a null is not a finite number"),
        ({"a": Y, "y": [1, 2, float("nan"), 0]}, {}, "row group 1, row 0, column 'y': nan is not a finite number"),
        ({"a": [1.0, 2, 3, 1e39], "y": Y}, {}, "row group 1, row 1, column 'a': 1e+39 is not a finite number"),
        ({"a": [], "y": []}, {}, None),
        ({}, {}, "has no column ''; nothing is allowed here"),
    ],
)
def test_a_mistake_in_a_file_is_told_with_its_place(
    tmp_path: Path, columns: dict[str, Any], kwargs: dict[str, Any], expected: str | None, has_statistics: bool
) -> None:
    if expected is None:
        columns, expected = {name: pa.array([], pa.float64()) for name in columns}, "has no rows"
    path = write(tmp_path / "data.parquet", columns, 2, write_statistics=has_statistics)
    assert error_of(path, **kwargs) == f"{path}: {expected}"


def test_a_null_that_the_statistics_show_is_told_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"row group 0, row 1, column 'a': a null"):
        load(write(tmp_path / "data.parquet", {"a": [1, None], "y": [1, 2]}))


def test_a_column_that_is_not_asked_for_may_hold_anything(tmp_path: Path) -> None:
    columns = {"a": Y, "note": ["x", None, "z", ""], "list": [[1], [], None, [2, 3]], "y": Y}
    assert table(load(write(tmp_path / "data.parquet", columns), features=["a"])).tolist() == [[y, y] for y in Y]


@pytest.mark.parametrize(
    ("columns", "kwargs", "expected"),
    [
        ({"a": Y, "x": Y}, {"features": ["a"]}, "has no column 'y'; allowed: a, x"),
        ({"y": Y}, {}, "has no column but the target, 'y'"),
        ({"b": Y, "y": Y}, {}, "column 'a' is missing; in FIRST it is double"),
        ({"a": [1, 2, 3, 4], "y": Y}, {}, "column 'a' is int64; in FIRST it is double"),
        ({"a": Y, "b": Y, "y": Y}, {}, "column 'b' is double; in FIRST it is missing"),
        ({"a": Y, "b": Y, "y": Y}, {"features": ["a"]}, None),
        ({"y": Y, "a": Y}, {}, None),
    ],
)
def test_shards_whose_columns_differ_are_refused_unless_they_are_not_asked_for(
    tmp_path: Path, columns: dict[str, Any], kwargs: dict[str, Any], expected: str | None
) -> None:
    first = write(tmp_path / "0.parquet", {"a": Y, "y": Y})
    second = write(tmp_path / "1.parquet", columns)
    if expected is None:
        assert table(load(str(tmp_path), **kwargs)).tolist() == 2 * [[y, y] for y in Y]
    else:
        assert error_of(str(tmp_path), **kwargs) == f"{second}: {expected.replace('FIRST', first)}"


def test_two_columns_of_a_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array(Y)] * 3, names=["a", "a", "y"]), path)
    assert error_of(str(path)) == f"{path}: has 2 columns called 'a'"


@pytest.mark.parametrize("features", [[], ["y"], ["a", "a"]])
def test_features_that_make_no_sense_are_refused(tmp_path: Path, features: list[str]) -> None:
    path = write(tmp_path / "data.parquet", {"a": Y, "y": Y})
    expected = f"data_loader.args.features: {features}; name different columns, not the target"
    assert error_of(path, ConfigError, features=features) == expected


def test_a_row_group_that_does_not_fit_is_refused_with_what_it_takes(tmp_path: Path) -> None:
    path = write(tmp_path / "data.parquet", rows_of(0, 1000))
    with pytest.raises(ConfigError) as caught:
        load(path, max_memory=1e-6)
    assert str(caught.value) == (
        "data_loader.args.max_memory: 1e-06; a row group of 1,000 rows, of which 3 columns are read, takes 0.001 GiB: "
        "give that, or write smaller row groups"
    )
    assert len(table(load(path, max_memory=0.001))) == 1000


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda data: data[: len(data) // 2], "Parquet magic bytes not found in footer"),
        (lambda data: b"", "Parquet file size is 0 bytes"),
        (lambda data: b"a,y\n1,2\n" * 100, "Parquet magic bytes not found in footer"),
        (lambda data: data[:-40] + b"\xff" * 32 + data[-8:], "."),
    ],
)
def test_a_file_that_is_not_whole_is_refused_before_anything_is_read(
    tmp_path: Path, damage: Callable[[bytes], bytes], expected: str
) -> None:
    path = Path(write(tmp_path / "data.parquet", rows_of(0, 1000)))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=f"^{re.escape(str(path))}: cannot be read: .*{expected}"):
        load(str(path))


def test_a_flipped_bit_in_a_page_is_found_by_its_checksum_with_the_row_group(tmp_path: Path) -> None:
    path = Path(write(tmp_path / "data.parquet", rows_of(0, 4000), write_page_checksum=True, use_dictionary=False))
    data = bytearray(path.read_bytes())
    at = pq.read_metadata(path).row_group(2).column(2).data_page_offset + 500
    data[at] ^= 1
    path.write_bytes(data)
    assert re.match(f"{path}: row group 2: cannot be read: .*checksum", error_of(str(path)))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_file_that_is_changed_during_a_run_is_refused(tmp_path: Path, num_workers: int) -> None:
    path = write(tmp_path / "data.parquet", rows_of(0, 1000))
    loader = load(path, num_workers=num_workers, max_memory=0.25)
    write(tmp_path / "data.parquet", rows_of(1, 1000))
    with pytest.raises(DataError, match="was changed since the run started"):
        batches_of(loader)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("missing.parquet", "cannot be read: No such file or directory"),
        ("", "has no .parquet file"),
        ("pipe", "cannot be read: is a pipe or a device, not a file"),
    ],
)
def test_a_path_without_data_is_told_with_the_reason(tmp_path: Path, name: str, expected: str) -> None:
    (tmp_path / "data.csv").write_text("a,y\n1,2\n")
    os.mkfifo(tmp_path / "pipe")
    assert error_of(str(tmp_path / name)) == f"{tmp_path / name}: {expected}"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("nosuch://rows", "cannot be read: Protocol not known: nosuch"),
        ("memory://nothing/here", "cannot be read: No such file or directory"),
    ],
)
def test_a_url_that_cannot_be_read_is_told_with_the_reason(url: str, expected: str) -> None:
    assert error_of(url) == f"{url}: {expected}"


@pytest.mark.parametrize("missing", ["fsspec.core", "fsspec"])
def test_a_url_without_fsspec_says_what_to_install(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith(missing):
            raise ImportError(f"No module named {missing!r}")
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    expected = f"memory://a: URLs are read by fsspec; pip install fsspec and what it names: No module named {missing!r}"
    assert error_of("memory://a") == expected


@pytest.mark.parametrize(
    ("values", "is_warned"),
    [
        (np.arange(2**24 - 3, 2**24 + 1), False),
        (np.arange(2**24 - 1, 2**24 + 3), True),
        (np.array([1.7e9, 1.7e9 + 1, 1.7e9 + 2, 1.7e9 + 3]), True),
        (np.array([1000.0, 1000.001, 1000.002, 1000.003]), True),
        (np.array([0.1, 0.2, 0.3, 1e7]), False),
    ],
)
def test_a_column_that_float32_does_not_hold_is_warned_of(
    tmp_path: Path, values: np.ndarray, is_warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    load(write(tmp_path / "data.parquet", {"a": values, "y": Y}))
    assert ("column 'a': its numbers, from" in caplog.text) is is_warned


# Runs, and sizes.


@pytest.mark.parametrize(("num_workers", "step"), [(0, 5), (0, 133), (2, 170)])
def test_a_run_that_is_stopped_goes_on_to_the_bit(
    num_workers: int, step: int, ragged: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = {"path": ragged, "target": "half", "batch_size": 64, "validation_split": 0.1, "num_workers": num_workers}

    def config(name: str) -> dict[str, Any]:
        return {
            "name": "Parquet",
            "n_gpu": 0,
            "arch": {"type": "MLP", "args": {"in_features": 2, "hidden": [8], "dropout": 0.1}},
            "data_loader": {"type": "ParquetDataLoader", "args": args | {"max_memory": SMALL}},
            "optimizer": {"type": "Adam", "args": {"lr": 0.01}},
            "loss": "mse_loss",
            "trainer": {"epochs": 2, "save_dir": str(tmp_path / name), "log_every_steps": 1},
        }

    whole = train(config("whole"))
    after_step = Trainer._after_step

    def signal_at_step(trainer: Trainer) -> None:
        if trainer.position.global_step + 1 == step:
            os.kill(os.getpid(), signal.SIGTERM)
        after_step(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_after_step", signal_at_step)
        with pytest.raises(Stopped):
            train(config("stopped"))
    stopped = the_run(config("stopped"))
    assert newest(stopped)["position"]["global_step"] == step
    Path(ragged).rename(tmp_path / "moved")
    run_train("-r", str(stopped), "--set", f"data_loader.args.path={tmp_path / 'moved'}")
    assert_same_run(whole, stopped)


def test_the_example_trains_and_is_tested_on_its_test_split(tmp_path: Path) -> None:
    write_shards(tmp_path)
    config = json.loads((ROOT / "configs" / "parquet.json").read_text())
    del config["$schema"]
    config["data_loader"]["args"] |= {"path": str(tmp_path / "train"), "test_path": str(tmp_path / "test")}
    config["trainer"] |= {"epochs": 10, "save_dir": str(tmp_path / "saved")}
    noise, num_rows = NOISE_VARIANCE, 500
    assert abs(evaluate("-r", str(train(config)))["loss"] - noise) < 5 * noise * (2 / num_rows) ** 0.5


PEAK = """
import sys
from pathlib import Path
from data_loader.parquet_data import ParquetDataLoader
sys.modules["pandas"] = None  # where it is installed, Arrow imports it while it reads
loader = ParquetDataLoader(sys.argv[1], 512, max_memory=float(sys.argv[2]))
before = int(Path("/proc/self/statm").read_text().split()[1]) * 4096
Path("/proc/self/clear_refs").write_text("5")  # sets the peak back, which importing torch has set
num_rows = sum(len(step[0].batch[0]) for step in loader.epoch_steps(1, seed=0))
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(num_rows, int(peak.split()[1]) * 1024 - before)
"""


def write_many(path: Path, num_rows: int, num_files: int, group_rows: int, num_columns: int = 8) -> None:
    """Write files of `num_rows` in all: id, columns of normal numbers, and y, which is id modulo 1000."""
    values = np.random.default_rng(0).normal(size=(num_columns, num_rows // num_files + 1)).astype(np.float32)
    for number, ids in enumerate(np.array_split(np.arange(num_rows), num_files)):
        columns = {f"x{i}": column[: len(ids)] for i, column in enumerate(values)}
        write(path / f"{number:03}.parquet", {"id": ids, **columns, "y": ids % 1000}, group_rows + 10 * number)


@pytest.mark.skipif(sys.platform != "linux", reason="measures memory by /proc")
def test_memory_is_that_of_the_window_however_many_rows_there_are(tmp_path: Path) -> None:
    write_many(tmp_path, 3_000_000, 12, 20_000)  # 120 MB as float32
    command = [sys.executable, "-c", PEAK, str(tmp_path), str(16 / 1024)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()
    assert int(output[0]) == 3_000_000
    assert int(output[1]) < 48 << 20  # 16 MiB, and what Arrow, its code and the allocators take


def part_of(path: str, number: int, num_processes: int) -> ParquetDataLoader:
    """Return the loader of one of several processes, with two workers."""
    loader = ParquetDataLoader(path, 4096, num_workers=2)
    loader.batch_sampler.share = Slices(num_processes, [number])
    return loader


def seen_until(path: str, number: int, num_processes: int, num_steps: int, pipe: Any) -> None:
    """Send the ids of the batches of each step, until this process is killed."""
    steps = part_of(path, number, num_processes).epoch_steps(1, seed=5)
    for _, step in zip(range(num_steps), steps):
        pipe.send_bytes(step[0].batch[0][:, 0].numpy().tobytes())
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("num_processes", [1, 2])
def test_ten_million_rows_come_once_each_over_a_kill(num_processes: int, tmp_path: Path) -> None:
    num_rows, num_steps = 10_000_000, 1_000
    write_many(tmp_path, num_rows, 64, 50_000)
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for number in range(num_processes):
        ours, theirs = context.Pipe(duplex=False)
        args = (str(tmp_path), number, num_processes, num_steps, theirs)
        processes.append(context.Process(target=seen_until, args=args))
        processes[-1].start()
        theirs.close()
        pipes.append(ours)
    counts = np.zeros(num_rows, np.int64)
    for _ in range(num_steps):
        for pipe in pipes:
            np.add.at(counts, np.frombuffer(pipe.recv_bytes(), np.float32).astype(np.int64), 1)
    for process in processes:
        process.join()
        assert process.exitcode == -signal.SIGKILL
    assert counts.sum() == num_steps * 4096
    for number in range(num_processes):
        for step in part_of(str(tmp_path), number, num_processes).epoch_steps(1, num_steps, seed=5):
            inputs, targets = step[0].batch
            assert torch.equal(inputs[:, 0].long() % 1000, targets[:, 0].long())
            np.add.at(counts, inputs[:, 0].long().numpy(), step[0].num_samples > 0)
    assert (counts == 1).all()
