"""A table over max_memory is converted once, is the same to the bit, and survives kills, full disks and company."""

from __future__ import annotations

import os
import resource
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from base import MappedBatches, TensorBatches, mapped, sampling
from data_loader.csv_data import CsvDataLoader
from example_runs import run_train, train
from faults import CONTEXT, PRELOAD, assert_same_run, exit_code, the_run
from helpers import newest
from tables.csv_reader import CsvReader
from trainer import Trainer
from utils import DataError, Stopped

TINY = 1e-6  # GiB: about a thousand bytes
NUM_ROWS = 150_000  # some four blocks of text


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of a CSV file of several blocks."""
    path = tmp_path_factory.mktemp("big") / "big.csv"
    values = np.random.default_rng(0).normal(size=(NUM_ROWS, 3))
    path.write_text("a,b,y\n" + ("%.6f,%.6f,%.6f\n" * NUM_ROWS) % tuple(values.ravel().tolist()))
    return path


def load(path: Path, cache_dir: Path, max_memory: float = TINY, **kwargs: Any) -> CsvDataLoader:
    """Load the file at `path` with target y."""
    return CsvDataLoader(str(path), "y", 1000, max_memory=max_memory, cache_dir=str(cache_dir), **kwargs)


def tables_in(cache_dir: Path) -> list[Path]:
    """Return what the cache holds beside its lock, hidden files too."""
    return sorted(path for path in cache_dir.iterdir() if path.name != ".lock")


def epoch_targets(loader: CsvDataLoader) -> Tensor:
    """Return the targets of an epoch, in its order."""
    return torch.cat([targets for [((_, targets), _)] in loader.epoch_steps(1, seed=3)]).flatten()


def test_a_mapped_table_is_that_in_memory_to_the_bit(big: Path, tmp_path: Path) -> None:
    splits: dict[str, Any] = {"test_split": 0.1, "validation_split": 0.2, "features": ["b", "a"]}
    mapped, memory = load(big, tmp_path, **splits), load(big, tmp_path, 1.0, **splits)
    assert isinstance(mapped.dataset, MappedBatches)
    assert isinstance(memory.dataset, TensorBatches)
    for one, other in zip(mapped.train_samples(), memory.train_samples(), strict=True):
        assert all(torch.equal(a, b) and b.is_contiguous() for a, b in zip(one, other))
    one, other = mapped.split_validation(), memory.split_validation()
    assert one is not None
    assert other is not None
    assert all(torch.equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y))
    orders = [epoch_targets(loader) for loader in (mapped, memory)]
    assert not torch.equal(*orders)
    assert torch.equal(*(order.sort().values for order in orders))


def test_a_table_is_converted_once_and_again_where_file_or_columns_change(tmp_path: Path) -> None:
    path, cache = tmp_path / "data.csv", tmp_path / "cache"
    path.write_text("a,b,y\n" + "1,2,3\n" * 1000)
    first = load(path, cache)
    [table] = tables_in(cache)
    written = table.stat().st_mtime_ns
    again = load(path, cache)
    assert tables_in(cache) == [table]
    assert table.stat().st_mtime_ns == written
    assert again.fingerprint() == first.fingerprint()
    path.write_text("a,b,y\n" + "1,2,3\n" * 999 + "1,2,4\n")
    changed = load(path, cache)
    assert changed.fingerprint() != first.fingerprint()
    assert changed.dataset.__getitems__([999])[1].item() == 4
    load(path, cache, features=["b"])
    assert len(tables_in(cache)) == 3


def test_a_copy_has_the_fingerprint_of_its_values(tmp_path: Path) -> None:
    path, cache = tmp_path / "data.csv", tmp_path / "cache"
    path.write_text("a,b,y\n" + "1,2,3\n" * 1000)
    shutil.copy2(path, tmp_path / "copy.csv")
    assert load(path, cache).fingerprint() == load(tmp_path / "copy.csv", cache).fingerprint()


def test_what_fits_in_max_memory_makes_no_cache(big: Path, tmp_path: Path) -> None:
    load(big, tmp_path / "cache", max_memory=NUM_ROWS * 3 * 4 * 1.1 / 2**30)
    assert not (tmp_path / "cache").exists()
    load(big, tmp_path / "cache", max_memory=NUM_ROWS * 3 * 4 * 0.9 / 2**30)
    assert len(tables_in(tmp_path / "cache")) == 1


def test_a_mistake_while_converting_is_told_with_its_row_and_leaves_no_table(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("a,y\n" + "1,2\n" * 500_000 + "1,x\n")
    with pytest.raises(DataError, match=r"data\.csv: row 500002, column 'y': 'x' is not a finite number"):
        load(path, tmp_path / "cache")
    assert tables_in(tmp_path / "cache") == []


def test_a_file_that_changes_while_it_is_read_is_refused(
    big: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(big.read_bytes())
    at_block(2, partial(os.utime, path, (0, 0)), monkeypatch.setattr)
    with pytest.raises(DataError, match=r"data\.csv: was changed while it was read"):
        load(path, tmp_path / "cache")
    assert tables_in(tmp_path / "cache") == []


def test_a_table_that_was_cut_short_is_told(big: Path, tmp_path: Path) -> None:
    load(big, tmp_path)
    [table] = tables_in(tmp_path)
    os.truncate(table, 1_000_000)
    with pytest.raises(DataError, match=r"\.npy: cannot be read: .*; delete it, and it is made again"):
        load(big, tmp_path)


def at_block(number: int, action: Callable[[], None], set_attribute: Callable[..., None] = setattr) -> None:
    """Let `action` happen in the midst of reading a file, before its block `number`."""
    original = CsvReader.blocks

    def blocks(self: CsvReader, columns: list[str]) -> Any:
        for i, rows in enumerate(original(self, columns)):
            if i == number:
                action()
            yield rows

    set_attribute(CsvReader, "blocks", blocks)


def _kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _load_in_child(path: Path, cache_dir: Path, setup: Callable[[], None] | None = None) -> None:
    if setup is not None:
        setup()
    try:
        load(path, cache_dir)
    except DataError as error:
        (cache_dir.parent / "error.txt").write_text(str(error))
        os._exit(error.exit_code)


def in_child(path: Path, cache_dir: Path, setup: Callable[[], None] | None = None) -> Any:
    """Start loading in a process of its own."""
    CONTEXT.set_forkserver_preload([*PRELOAD, "train"])  # where this is the first: other tests use the server too
    process = CONTEXT.Process(target=_load_in_child, args=(path, cache_dir, setup))
    process.start()
    return process


def test_a_kill_while_converting_leaves_nothing_that_is_taken_for_whole(big: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert exit_code(in_child(big, cache, partial(at_block, 2, _kill_self))) == -signal.SIGKILL
    [temp] = tables_in(cache)
    assert (temp.suffix, temp.stat().st_size > 0) == (".tmp", True)
    loader = load(big, cache)
    assert len(loader.dataset) == NUM_ROWS
    assert [path.suffix for path in tables_in(cache)] == [".npy"]


def test_two_processes_at_once_convert_once(big: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    processes = [in_child(big, cache) for _ in range(3)]
    assert [exit_code(process) for process in processes] == [0, 0, 0]
    [table] = tables_in(cache)
    written = table.stat().st_mtime_ns
    assert len(load(big, cache).dataset) == NUM_ROWS
    assert table.stat().st_mtime_ns == written


def _fill_disk() -> None:
    """Meet the file size limit of the process, which to a program is what a full disk is: a write that fails."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))


def test_a_disk_that_is_full_is_told_and_nothing_is_left(big: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert exit_code(in_child(big, cache, _fill_disk)) == DataError.exit_code
    assert (tmp_path / "error.txt").read_text() == f"{cache}: cannot be written to: File too large"
    assert tables_in(cache) == []


def test_a_cache_that_cannot_be_made_is_told(big: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/cache: cannot be written to: Not a directory"):
        load(big, tmp_path / "file" / "cache")


@pytest.mark.parametrize(("num_workers", "steps"), [(0, (5, 17, 29)), (2, (29,))])
def test_a_run_on_a_mapped_table_goes_on_to_the_bit(
    num_workers: int, steps: tuple[int, ...], big: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of 10 rows in windows of 4 blocks, so that an epoch has many of both; stops in the midst of epochs."""
    monkeypatch.setattr(mapped, "BLOCK_BYTES", 120)
    monkeypatch.setattr(sampling, "WINDOW_BLOCKS", 4)
    path = tmp_path / "data.csv"
    with open(big) as file:
        path.write_text("".join(file.readline() for _ in range(601)))
    args = {"path": str(path), "target": "y", "batch_size": 32, "validation_split": 0.1, "num_workers": num_workers}
    args |= {"max_memory": TINY, "cache_dir": str(tmp_path / "cache")}

    def config(name: str) -> dict[str, Any]:
        return {
            "name": "Csv",
            "n_gpu": 0,
            "arch": {"type": "MLP", "args": {"in_features": 2, "hidden": [8], "dropout": 0.1}},
            "data_loader": {"type": "CsvDataLoader", "args": args},
            "optimizer": {"type": "Adam", "args": {"lr": 0.01}},
            "loss": "mse_loss",
            "lr_scheduler": {"type": "StepLR", "args": {"step_size": 1}},
            "trainer": {"epochs": 3, "save_dir": str(tmp_path / name), "log_every_steps": 1, "ema_decay": 0.9},
        }

    whole = train(config("whole"))
    assert newest(whole)["position"]["global_step"] == 3 * 17
    after_step = Trainer._after_step
    for step in steps:

        def signal_at_step(trainer: Trainer, at: int = step) -> None:
            if trainer.position.global_step + 1 == at:
                os.kill(os.getpid(), signal.SIGTERM)
            after_step(trainer)

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "_after_step", signal_at_step)
            with pytest.raises(Stopped):
                train(config(f"stopped{step}"))
        stopped = the_run(config(f"stopped{step}"))
        assert newest(stopped)["position"]["global_step"] == step
        run_train("-r", str(stopped), "--set", f"data_loader.args.cache_dir={tmp_path / 'other'}")
        assert_same_run(whole, stopped)
