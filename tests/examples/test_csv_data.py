"""CSV data comes as it stands in the file, splits are exact, and every mistake in a file is told with its place."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from base import TensorBatches
from data_loader.csv_data import CsvDataLoader
from utils import ConfigError, DataError


def write(tmp_path: Path, text: str) -> str:
    """Write a CSV file; return its path."""
    path = tmp_path / "data.csv"
    path.write_text(text, encoding="utf-8", newline="")
    return str(path)


def load(path: str, **kwargs: Any) -> CsvDataLoader:
    """Load the file at `path` with target y."""
    return CsvDataLoader(path, "y", batch_size=4, **kwargs)


def table(loader: CsvDataLoader) -> Tensor:
    """Return all rows that the loader holds, features then target."""
    assert isinstance(loader.dataset, TensorBatches)
    return torch.cat([loader.dataset.inputs, loader.dataset.targets], dim=1)


def error_of(tmp_path: Path, text: str, **kwargs: Any) -> str:
    """Return what loading `text` complains of, after the path."""
    path = write(tmp_path, text)
    with pytest.raises(DataError) as caught:
        load(path, **kwargs)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    ("text", "kwargs", "expected"),
    [
        ("a,b,y\n1,2,3\n4.5,-5e-1,6\n", {}, [[1, 2, 3], [4.5, -0.5, 6]]),
        ("a,b,y\r\n1,2,3\r\n", {}, [[1, 2, 3]]),
        ("a,b,y\n1,2,3", {}, [[1, 2, 3]]),
        ("\ufeffa,b,y\n1,2,3\n", {}, [[1, 2, 3]]),
        ("a,b,y\n\n1,2,3\n\n", {}, [[1, 2, 3]]),
        ("y,a,b\n3,1,2\n", {}, [[1, 2, 3]]),
        ("a,b,y\n1,2,3\n", {"features": ["b"]}, [[2, 3]]),
        ("a,b,y\n1,2,3\n", {"features": ["b", "a"]}, [[2, 1, 3]]),
        ("a;b;y\n1;2;3\n", {"delimiter": ";"}, [[1, 2, 3]]),
        ("a\tb\ty\n1\t2\t3\n", {"delimiter": "\t"}, [[1, 2, 3]]),
        ('"a, of ""x""",b,y\n"1",2,"3"\n', {}, [[1, 2, 3]]),
        ('a,note,y\n1,"two, or ""2""",3\n2,,4\n3,NaN,5\n', {"features": ["a"]}, [[1, 3], [2, 4], [3, 5]]),
        ('"a;b";y\n1;3\n', {"delimiter": ";"}, [[1, 3]]),
        ("a,b,b,y\n1,2,2,3\n", {"features": ["a"]}, [[1, 3]]),
        ("größe,y\n1,3\n", {}, [[1, 3]]),
    ],
)
def test_the_columns_asked_for_come_as_they_stand(
    tmp_path: Path, text: str, kwargs: dict[str, Any], expected: list[list[float]]
) -> None:
    loaded = table(load(write(tmp_path, text), **kwargs))
    assert loaded.dtype == torch.float32
    assert loaded.tolist() == expected


def test_features_are_by_default_all_columns_but_the_target_by_their_names(tmp_path: Path) -> None:
    assert load(write(tmp_path, 'a,"b, c",y,d\n1,2,3,4\n')).features == ["a", "b, c", "d"]


def test_a_large_file_reads_as_pythons_csv_and_numpy_read_it(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(30_000, 3)) * 10.0 ** np.array([0, 6, -6])
    path = write(tmp_path, "a,b,y\n" + "".join(",".join(map(repr, row)) + "\n" for row in values.tolist()))
    with open(path, newline="") as file:
        rows = list(csv.reader(file))[1:]
    expected = torch.from_numpy(np.array(rows, dtype=np.float64).astype(np.float32))
    assert torch.equal(table(load(path)), expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is empty"),
        ("a,y\n", "has a header but no rows"),
        ("a,y\n\n\n", "has a header but no rows"),
        ("a,y\n1,2\n3\n4,5\n", "row 3: 1 columns, the header has 2"),
        ("a,y\n1,2\n3,4,5\n", "row 3: 3 columns, the header has 2"),
        ("a,y\n1,2,\n", "row 2: 3 columns, the header has 2"),
        ("a,y\n1,2\n\n3\n", "row 4: 1 columns, the header has 2"),
        ("a,b\n1,2\n", "has no column 'y'; allowed: a, b"),
        ("a,why\n1,2\n", "has no column 'y'; did you mean 'why'?"),
        ("a,Y\n1,2\n", "has no column 'y'; did you mean 'Y'?"),
        ("a;y\n1;2\n", "has no column 'y'; did you mean 'a;y'?; it looks like ';' is the delimiter: give `delimiter`"),
        ("y,a,y\n1,2,3\n", "has 2 columns called 'y'"),
        ("a,y\n1,2\n3,four\n", "row 3, column 'y': 'four' is not a finite number"),
        ("a,y\n1,2\n\nx,4\n", "row 4, column 'a': 'x' is not a finite number"),
        ('a,y\n1,2\n"1,5",4\n', "row 3, column 'a': '1,5' is not a finite number"),
        ("a,y\n1,2\nNaN,4\n", "row 3, column 'a': 'NaN' is not a finite number"),
        ("a,y\n1,nan\n", "row 2, column 'y': 'nan' is not a finite number"),
        ("a,y\n1,NA\n", "row 2, column 'y': 'NA' is not a finite number"),
        ("a,y\n1,2\n,4\n", "row 3, column 'a': '' is not a finite number"),
        ("a,y\n1,2\n3,\n", "row 3, column 'y': '' is not a finite number"),
        ("a,y\n1,2\ninf,4\n", "row 3, column 'a': 'inf' is not a finite number"),
        ("a,y\n1,-inf\n", "row 2, column 'y': '-inf' is not a finite number"),
        ("a,y\n1,1e999\n", "row 2, column 'y': '1e999' is not a finite number"),
        ("a,y\n1,true\n", "row 2, column 'y': 'true' is not a finite number"),
    ],
)
def test_a_mistake_in_the_file_is_told_with_its_row_and_column(tmp_path: Path, text: str, expected: str) -> None:
    assert error_of(tmp_path, text) == expected


def test_a_mistake_far_down_in_a_large_file_is_told_with_its_row(tmp_path: Path) -> None:
    text = "a,y\n" + "1.25,2.5\n" * 200_000 + "oops,2\n"
    assert error_of(tmp_path, text) == "row 200002, column 'a': 'oops' is not a finite number"


def test_a_feature_that_is_missing_is_told_with_the_nearest_name(tmp_path: Path) -> None:
    text = "alcohol,density,y\n1,2,3\n"
    assert error_of(tmp_path, text, features=["alcohl"]) == "has no column 'alcohl'; did you mean 'alcohol'?"


def test_a_feature_that_stands_twice_is_refused(tmp_path: Path) -> None:
    assert error_of(tmp_path, "a,a,y\n1,2,3\n") == "has 2 columns called 'a'"


def test_a_mistake_in_a_column_that_is_not_asked_for_is_none(tmp_path: Path) -> None:
    path = write(tmp_path, "a,other,y\n1,text,3\n2,,4\n3,inf,5\n")
    assert table(load(path, features=["a"])).tolist() == [[1, 3], [2, 4], [3, 5]]


@pytest.mark.parametrize(("name", "reason"), [("missing.csv", "No such file or directory"), (".", "Is a directory")])
def test_a_file_that_cannot_be_read_is_told_with_the_reason(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(DataError) as caught:
        load(str(tmp_path / name))
    assert str(caught.value) == f"{tmp_path / name}: cannot be read: {reason}"


def test_a_header_that_is_not_utf8_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_bytes("größe,y\n1,2\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"data\.csv: cannot be read: 'utf-8' codec"):
        load(str(tmp_path / "data.csv"))


@pytest.mark.parametrize(("test_split", "validation_split"), [(0.2, 0.25), (7, 5), (0.1, 0), (1, 0.5)])
def test_train_validation_and_test_splits_are_disjoint_and_together_all_rows(
    tmp_path: Path, test_split: float | int, validation_split: float | int
) -> None:
    path = write(tmp_path, "a,y\n" + "".join(f"{i},{-i}\n" for i in range(60)))
    train = load(path, test_split=test_split, validation_split=validation_split)
    test = load(path, test_split=test_split, validation_split=validation_split, training=False)
    valid = train.split_validation()
    parts = [
        [batch for step in train.epoch_steps(1, seed=0) for batch, _ in step],
        list(valid) if valid is not None else [],
        [batch for step in test.epoch_steps(1, seed=0) for batch, _ in step],
    ]
    rows = [[inputs.item() for batch, _ in part for inputs in batch] for part in parts]
    assert sorted(rows[0] + rows[1] + rows[2]) == list(range(60))
    assert all(torch.equal(inputs, -targets) for part in parts for inputs, targets in part)
    held_out = 60 * test_split if isinstance(test_split, float) else test_split
    assert len(rows[2]) == held_out
    assert len(rows[1]) == int((60 - held_out) * validation_split if validation_split < 1 else validation_split)
    assert test.split_validation() is None


def test_the_test_split_is_always_the_same_rows_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "a,y\n" + "".join(f"{i},{-i}\n" for i in range(60)))
    splits = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        loader = load(path, test_split=0.2, training=False)
        splits.append(torch.cat([inputs for [((inputs, _), _)] in loader.epoch_steps(seed + 1, seed=seed)]).flatten())
    assert torch.equal(splits[0], splits[1])
    assert torch.equal(splits[0], splits[0].sort().values)


def test_evaluating_without_a_test_split_is_an_error_that_names_the_key(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^data_loader\.args\.test_split is 0: there is no test split to evaluate on$"):
        load(write(tmp_path, "a,y\n1,2\n"), training=False)


@pytest.mark.parametrize("key", ["test_split", "validation_split"])
@pytest.mark.parametrize("value", [1.0, 2, -1, 0.3])
def test_a_split_that_leaves_or_holds_out_nothing_is_refused_with_its_config_path(
    tmp_path: Path, key: str, value: float | int
) -> None:
    path = write(tmp_path, "a,y\n1,2\n3,4\n")
    with pytest.raises(ConfigError, match=rf"^data_loader\.args\.{key}: {value} of 2 samples"):
        load(path, **{key: value})


def test_quoted_line_breaks_in_other_columns_are_read_in_large_files_too(tmp_path: Path) -> None:
    path = tmp_path / "breaks.csv"
    rows = "".join(f'{i},"line\nbreak {i}",2\n' for i in range(200_000))
    path.write_text("x,text,y\n" + rows)
    loader = CsvDataLoader(str(path), "y", 1000, features=["x"])
    assert loader.n_samples == 200_000


@pytest.mark.parametrize("text", ["1e39", "1_000", "٣", "0x10"])
def test_what_is_no_finite_float32_is_told_with_its_place(text: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(f"x,y\n1,2\n{text},2\n")
    with pytest.raises(DataError, match=f"row 3, column 'x': '{text}' is not a finite number"):
        CsvDataLoader(str(path), "y", 2)


@pytest.mark.parametrize(
    "args", [{"features": ["x", "x"]}, {"features": ["x", "y"]}, {"features": []}, {"delimiter": ",,"}]
)
def test_arguments_that_make_no_sense_are_refused(args: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "good.csv"
    path.write_text("x,y\n1,2\n3,4\n")
    with pytest.raises(ConfigError, match=r"data_loader\.args\."):
        CsvDataLoader(str(path), "y", 2, **args)
