"""Hugging Face datasets on this machine give what is in them, and mistakes are told."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from data_loader.collate import pad
from data_loader.hf import HfDataLoader
from utils import ConfigError, DataError

datasets = pytest.importorskip("datasets")
ROWS = {"a": [0.5 * i for i in range(40)], "b": list(range(40)), "y": [i % 3 for i in range(40)]}


@pytest.fixture(params=["parquet", "csv", "arrow", "folder"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the path of ROWS in each form."""
    table, path = pa.table(ROWS), tmp_path / f"rows.{request.param}"
    if request.param == "parquet":
        pq.write_table(table, path)
    elif request.param == "csv":
        pyarrow.csv.write_csv(table, path)
    elif request.param == "arrow":
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
    else:
        datasets.DatasetDict({"train": datasets.Dataset.from_dict(ROWS)}).save_to_disk(str(path))
    return str(path)


def load(path: str | Path, tmp_path: Path, **options: Any) -> HfDataLoader:
    given: dict[str, Any] = {"columns": ["a", "b"], "target": "y", "cache_dir": str(tmp_path / "cache")}
    return HfDataLoader(str(path), 16, **given | options)


def batches(loader: HfDataLoader) -> list[tuple[Any, Tensor]]:
    return [microbatch.batch for [microbatch] in loader.epoch_steps(1, seed=3)]


def test_rows_come_as_they_are_by_any_number_of_workers(path: str, tmp_path: Path) -> None:
    one, other = (batches(load(path, tmp_path, num_workers=n)) for n in (0, 2))
    inputs, targets = (torch.cat(parts) for parts in zip(*one))
    order = inputs[:, 1].long()
    assert torch.equal(inputs[:, 0], order * 0.5)
    assert torch.equal(targets, order % 3)
    assert torch.equal(order.sort().values, torch.arange(40))
    assert all(torch.equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y))


def test_lists_are_padded(tmp_path: Path) -> None:
    rows = {"tokens": [[1] * (1 + i % 4) for i in range(20)], "y": [i % 4 for i in range(20)]}
    datasets.Dataset.from_dict(rows).save_to_disk(str(tmp_path / "rows"))
    for padded, targets in batches(load(tmp_path / "rows", tmp_path, columns=["tokens"], collate=pad)):
        assert torch.equal(padded.lengths, targets + 1)
        assert torch.equal(padded.values, padded.mask.long())


def test_mistakes_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets.DatasetDict({"train": datasets.Dataset.from_dict(ROWS)}).save_to_disk(str(tmp_path / "rows"))
    with pytest.raises(ConfigError, match=r"split: .*rows has no 'trian'; did you mean 'train'"):
        load(tmp_path / "rows", tmp_path, split="trian")
    with pytest.raises(DataError, match="has no column 'c'"):
        load(tmp_path / "rows", tmp_path, columns=["c"])
    with pytest.raises(DataError, match="No such file"):
        load(tmp_path / "none.csv", tmp_path)
    (tmp_path / "bad.parquet").write_text("no table")
    with pytest.raises(DataError, match=r"bad.parquet: cannot be read"):
        load(tmp_path / "bad.parquet", tmp_path)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match="pip install datasets"):
        load(tmp_path / "rows", tmp_path)
