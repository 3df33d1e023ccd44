"""Outputs get names by what the loss takes; a file of them is whole or not there; chunks become batches."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from base import BaseDataLoader, Chunk
from base.new_inputs import rebatched
from prediction import Kind, Meaning, OutputFile
from prediction.meaning import kind_of
from utils import ConfigError, DataError, RunDirError

LOGITS = torch.tensor([[1.0, 3.0, -2.0], [0.5, 0.25, 0.75]])


@pytest.mark.parametrize(
    ("loss", "outputs"),
    [
        ("cross_entropy", LOGITS),
        ({"type": "CrossEntropyLoss"}, LOGITS),
        ("nll_loss", LOGITS.log_softmax(1)),
        ({"type": "NLLLoss"}, LOGITS.log_softmax(1)),
    ],
)
def test_classes_get_names_and_probabilities(loss: object, outputs: Tensor) -> None:
    columns = Meaning(kind_of(loss), ["kind"], ["a", "b", "c"]).columns(outputs)
    assert list(columns) == ["kind", "p_a", "p_b", "p_c"]
    assert columns["kind"].tolist() == ["b", "c"]
    found = np.stack([columns[f"p_{name}"] for name in "abc"], axis=1)
    np.testing.assert_allclose(found, LOGITS.softmax(1).numpy(), rtol=1e-6)


def test_without_names_a_class_is_its_index() -> None:
    columns = Meaning("logits").columns(LOGITS)
    assert list(columns) == ["class", "p_0", "p_1", "p_2"]
    assert columns["class"].tolist() == [1, 2]


@pytest.mark.parametrize(("kind", "outputs"), [("binary-logits", [-2.0, 2.0]), ("binary-probabilities", [0.25, 0.75])])
@pytest.mark.parametrize("ndim", [1, 2])
def test_one_binary_output_is_the_probability_of_the_second_class(kind: Kind, outputs: list[float], ndim: int) -> None:
    columns = Meaning(kind, class_names=["no", "yes"]).columns(torch.tensor(outputs).reshape((-1, 1)[:ndim]))
    assert columns["class"].tolist() == ["no", "yes"]
    expected = torch.tensor(outputs).sigmoid() if kind == "binary-logits" else torch.tensor(outputs)
    assert columns["p_yes"].tolist() == expected.tolist()


def test_several_binary_outputs_are_no_alternatives() -> None:
    assert list(Meaning(kind_of({"type": "BCEWithLogitsLoss"})).columns(LOGITS)) == ["p_0", "p_1", "p_2"]


def test_other_losses_leave_the_outputs_as_they_are() -> None:
    meaning = Meaning(kind_of({"type": "L1Loss"}), ["y", "z", "w"])
    columns = meaning.columns(LOGITS)
    assert list(columns) == ["y", "z", "w"]
    assert np.stack(list(columns.values()), axis=1).tolist() == LOGITS.tolist()
    assert list(Meaning("values").columns(LOGITS[:, :1])) == ["output"]
    assert list(Meaning("values", ["y"]).columns(LOGITS)) == ["output_0", "output_1", "output_2"]


def test_what_the_outputs_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="does not sum to 1"):
        Meaning("log-probabilities").columns(LOGITS)
    with pytest.raises(ConfigError, match="3 classes, but the data has names for 2"):
        Meaning("logits", class_names=["a", "b"]).columns(LOGITS)
    with pytest.raises(ConfigError, match=r"let predict_batch in trainer/batch.py return a tensor"):
        Meaning("values").columns((LOGITS, LOGITS))
    assert np.isnan(Meaning("log-probabilities").columns(LOGITS * torch.nan)["p_0"]).all()


# Batches.


def chunks_of(sizes: list[int]) -> Iterator[Chunk]:
    start = 0
    for size in sizes:
        numbers = torch.arange(start, start + size)
        yield Chunk({"a": numbers, "b": [numbers * 10]}, pa.table({"id": numbers.numpy()}), [f"after {start}"])
        start += size


@pytest.mark.parametrize("sizes", [[10], [3, 0, 4, 1], [1] * 9, [0, 5, 0], [4, 4], [0]])
def test_batches_are_the_same_whatever_the_chunks(sizes: list[int]) -> None:
    chunks = list(rebatched(chunks_of(sizes), 4))
    assert [chunk.size % 4 for chunk in chunks[:-1]] == [0] * (len(chunks) - 1)
    assert sum(chunk.size for chunk in chunks) == sum(sizes)
    assert [i for chunk in chunks for i in chunk.inputs["a"].tolist()] == list(range(sum(sizes)))
    assert [i for chunk in chunks for i in chunk.inputs["b"][0].tolist()] == list(range(0, sum(sizes) * 10, 10))
    assert [i for chunk in chunks for i in chunk.kept["id"].to_pylist()] == list(range(sum(sizes)))
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    assert [mistake for chunk in chunks for mistake in chunk.mistakes] == [f"after {start}" for start in starts]


def test_a_loader_without_new_inputs_takes_tensors() -> None:
    inputs = BaseDataLoader.new_inputs({}, {})
    assert inputs([[1.0, 2.0]]).tolist() == [[1.0, 2.0]]
    with pytest.raises(DataError, match="give a tensor"):
        inputs("new.csv")
    with pytest.raises(ConfigError, match="new_inputs reads no files"):
        next(inputs.chunks(Path("new.csv"), [], 8))


# Files.


def test_text_like_a_formula_is_made_text_in_csv_alone(tmp_path: Path) -> None:
    texts = ["=1+1", "+a", "-x", "@sum", "\tx", "\rx", "-5", "+3.5e2", "-", "a=1", "", "'q", 'say "=1"', "a,b", None]
    for name in ("out.csv", "out.parquet"):
        with OutputFile(tmp_path / name) as output:
            output.write(pa.table({"=id": pa.array(texts, pa.string()), "y": pa.array([-1.5] * len(texts))}))
    with open(tmp_path / "out.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["'=id", "y"]
    expected = ["'=1+1", "'+a", "'-x", "'@sum", "'\tx", "'\rx", "-5", "+3.5e2", "'-", *texts[9:14], ""]
    assert [row[0] for row in rows] == expected
    assert {row[1] for row in rows} == {"-1.5"}
    assert pq.read_table(tmp_path / "out.parquet")["=id"].to_pylist() == texts


def write_all(path: Path, tables: Iterable[pa.Table]) -> None:
    with OutputFile(path) as output:
        for table in tables:
            output.write(table)


def interrupted() -> Iterator[pa.Table]:
    yield pa.table({"y": [1.0]})
    raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["out.csv", "out.parquet"])
def test_what_fails_leaves_the_file_as_it_was(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text("before")
    with pytest.raises(KeyboardInterrupt):
        write_all(path, interrupted())
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["out.csv", "out.parquet"])
def test_a_full_disk_is_one_message_and_leaves_the_file_as_it_was(name: str, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    path = tmp_path / name
    path.write_text("before")
    table = pa.table({"y": np.random.default_rng(0).normal(size=100_000)})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # to a program it is what a full disk is
    try:
        with pytest.raises(RunDirError, match="cannot be written to: "):
            write_all(path, [table] * 3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_an_output_that_cannot_be_is_refused_first(tmp_path: Path) -> None:
    (tmp_path / "dir.csv").mkdir()
    for name, reason in (("out.txt", "ends in .csv or .parquet"), ("dir.csv", "directory"), ("no/out.csv", "there is")):
        with pytest.raises(ConfigError, match=reason):
            OutputFile(tmp_path / name)
