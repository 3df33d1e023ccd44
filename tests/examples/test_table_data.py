"""A table of every kind of column is encoded as promised, split and fitted on the training rows alone, and trains."""

from __future__ import annotations

import csv
import json
import random
import re
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from base import MappedBatches, TensorBatches
from data_loader.csv_data import CsvDataLoader
from data_loader.table_data import TableDataLoader
from model.loss import log_mse_loss
from model.table_encoder import TableEncoder
from model.table_mlp import TableMLP
from tables import kept_table
from tables.kept_table import KeptBatches
from tables.row_encoder import RowEncoder
from utils import ConfigError, DataError

NUM_ROWS = 300
COLUMNS: dict[str, Any] = {
    "age": {"kind": "number", "missing": "median", "indicator": True},
    "city": {"kind": "category", "missing": "most_frequent", "min_count": 3},
    "job": {"kind": "category", "missing": "constant", "constant": "none", "encoding": "embedding"},
    "when": {"kind": "date", "missing": "mean"},
    "sold": {"kind": "bool", "missing": "constant", "constant": False},
    "price": "number",
}
Row = dict[str, str]


def rows() -> list[Row]:
    """Return rows with gaps, rare labels, dates and groups."""
    generator = random.Random(0)
    made = []
    for i in range(NUM_ROWS):
        age = generator.uniform(18, 90)
        row = {
            "id": f"n{i}",
            "age": f"{age:.2f}",
            "city": generator.choice(["Ulm", "Bonn", "Hof"] if generator.random() < 0.98 else ["Rare"]),
            "job": generator.choice(["baker", "cook"]),
            "when": str(date(2020, 1, 1) + timedelta(days=generator.randrange(1000))),
            "sold": generator.choice(["yes", "no"]),
            "person": f"p{i // 7}",
            "price": f"{2 * age + generator.gauss(0, 1) + 50:.3f}",
            "size": generator.choice(["small", "large", "medium"]),
        }
        for key in ("age", "city", "job", "when", "sold"):
            row[key] = "" if generator.random() < 0.1 else row[key]
        made.append(row)
    return made


ROWS = rows()


def write(path: Path, made: list[Row] = ROWS) -> Path:
    """Write rows as a CSV file, or Parquet with typed columns."""
    if path.suffix == ".parquet":
        columns = {key: [row[key] or None for row in made] for key in made[0]}
        typed = {key: [None if v is None else float(v) for v in columns[key]] for key in ("age", "price")}
        typed["when"] = [None if v is None else date.fromisoformat(v) for v in columns["when"]]  # type: ignore[misc]
        typed["sold"] = [None if v is None else v == "yes" for v in columns["sold"]]
        pq.write_table(pa.table({**columns, **typed}), path, row_group_size=50)
        return path
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, made[0])
        writer.writeheader()
        writer.writerows(made)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of the table in CSV."""
    return write(tmp_path / "table.csv")


def load(path: Path, target: str | list[str] = "price", **kwargs: Any) -> TableDataLoader:
    """Load a table; by default all its columns, split by chance."""
    splits = {"test_split": 0.2, "validation_split": 0.25}
    given = {"columns": COLUMNS, "cache_dir": str(path.parent / "cache"), **splits, **kwargs}
    return TableDataLoader(str(path), target, 16, **given)


def everything(loader: TableDataLoader) -> tuple[Tensor, Tensor]:
    """Return all rows, of every split."""
    inputs, targets = loader.dataset.__getitems__(list(range(len(loader.dataset))))
    return inputs, targets


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal, gaps included."""
    return one.dtype == other.dtype and torch.equal(one.nan_to_num(-1e30), other.nan_to_num(-1e30))


def test_each_kind_is_encoded_as_promised_from_the_training_rows_alone(path: Path) -> None:
    loader = load(path)
    inputs, targets = everything(loader)
    train = [ROWS[i] for i in loader.train_indices().tolist()]
    columns = {column["name"]: column for column in loader.facts()["table"]["columns"]}
    ages = torch.tensor([float(row["age"] or "nan") for row in ROWS])
    assert same(inputs[:, 0], ages)
    seen = np.array([float(row["age"]) for row in train if row["age"]], np.float32)
    assert columns["age"]["fill"] == [float(np.median(seen))]
    assert columns["age"]["mean"] == pytest.approx([seen.astype(float).mean()], rel=1e-12)
    assert columns["age"]["std"] == pytest.approx([seen.astype(float).std()], rel=1e-12)
    for at, key in ((1, "city"), (2, "job")):
        counts: dict[str, int] = {}
        for row in train:
            counts[row[key]] = counts.get(row[key], 0) + 1
        labels = sorted(k for k, n in counts.items() if k and n >= (3 if key == "city" else 1))
        labels = sorted([*labels, "none"]) if key == "job" else labels
        assert columns[key]["labels"] == labels
        codes = [
            labels.index(row[key]) + 1 if row[key] in labels else float("nan" if not row[key] else 0) for row in ROWS
        ]
        assert same(inputs[:, at], torch.tensor(codes, dtype=torch.float32))
    days = [date.fromisoformat(row["when"]) if row["when"] else None for row in ROWS]
    epoch = date(1970, 1, 1)
    parts = [[d.year, d.month, d.day, d.weekday(), (d - epoch).days] if d else [float("nan")] * 5 for d in days]
    assert same(inputs[:, 3:8], torch.tensor(parts, dtype=torch.float32))
    sold = [{"yes": 1.0, "no": 0.0, "": float("nan")}[row["sold"]] for row in ROWS]
    assert same(inputs[:, 8], torch.tensor(sold))
    assert same(targets, torch.tensor([[float(row["price"])] for row in ROWS]))


def test_parquet_of_typed_columns_is_the_same_table(path: Path, tmp_path: Path) -> None:
    typed = load(write(tmp_path / "table.parquet"))
    assert typed.facts()["table"] == load(path).facts()["table"]
    assert typed.fingerprint() == load(path).fingerprint()


def test_the_model_fills_gaps_scales_and_expands(path: Path) -> None:
    loader = load(path)
    table = loader.facts()["table"]
    encoder = TableEncoder(table["columns"])
    inputs, _ = everything(loader)
    outputs = encoder(inputs)
    assert outputs.shape == (NUM_ROWS, encoder.out_features)
    assert outputs.isfinite().all()
    age, city, job = table["columns"][:3]
    is_gap = inputs[:, 0].isnan()
    filled = torch.where(is_gap, torch.tensor(age["fill"][0]), inputs[:, 0])
    torch.testing.assert_close(outputs[:, 0], (filled - age["mean"][0]) / age["std"][0])
    assert torch.equal(outputs[:, 7], is_gap.float())  # after age, five parts of the date, and sold
    codes = torch.where(inputs[:, 1].isnan(), torch.tensor(city["fill"][0]), inputs[:, 1]).long()
    one_hot = torch.nn.functional.one_hot(codes, len(city["labels"]) + 1)[:, 1:].float()
    assert torch.equal(outputs[:, 8 : 8 + len(city["labels"])], one_hot)
    codes = torch.where(inputs[:, 2].isnan(), torch.tensor(float(job["labels"].index("none") + 1)), inputs[:, 2])
    assert torch.equal(outputs[:, 8 + len(city["labels"]) :], encoder.embeddings[0](codes.long()))
    train = outputs[loader.train_indices()]
    torch.testing.assert_close(train[~is_gap[loader.train_indices()], 0].mean(), torch.tensor(0.0), atol=1e-5, rtol=0)


def test_rows_are_encoded_the_same_from_a_checkpoints_facts(path: Path) -> None:
    loader = load(path)
    facts = json.loads(json.dumps(loader.facts()))
    encoder = RowEncoder.from_facts(facts["table"])
    table = pa.table({key: [row[key] for row in ROWS] for key in ROWS[0]})
    assert same(encoder.encode(table), everything(loader)[0])
    changed = [{**row, "age": "old" if i == 5 else row["age"], "city": "Unseen"} for i, row in enumerate(ROWS)]
    rows, mistakes = encoder.encode_rows(pa.table({key: [row[key] for row in changed] for key in ROWS[0]}))
    assert mistakes == {5: "column 'age': 'old' is not a finite number"}
    assert rows[:, 1].eq(0).all()
    with pytest.raises(DataError, match=r"^row 5, column 'age': 'old' is not a finite number$"):
        encoder.encode(pa.table({key: [row[key] for row in changed] for key in ROWS[0]}))
    with pytest.raises(DataError, match=r"^has no column 'age'; did you mean 'Age'"):
        encoder.encode(table.rename_columns([name.replace("age", "Age") for name in table.schema.names]))


def test_a_test_split_is_encoded_as_the_model_was_trained(path: Path) -> None:
    train = load(path)
    test = load(path, training=False, validation_split=0.0, table=train.facts()["table"])
    assert test.facts() == train.facts()
    assert not set(test.train_indices().tolist()) & {*train.train_indices().tolist(), *train.valid_indices().tolist()}
    assert all(same(*pair) for pair in zip(everything(train), everything(test)))


def test_splits_by_chance_are_those_of_plain_numbers(path: Path) -> None:
    table = load(path, columns={"age": {"kind": "number", "missing": "mean"}})
    (path.parent / "numbers.csv").write_text("a,y\n" + "1,2\n" * NUM_ROWS)
    plain = CsvDataLoader(str(path.parent / "numbers.csv"), "y", 16, validation_split=0.25, test_split=0.2)
    assert torch.equal(table.train_indices(), plain.train_indices())
    assert torch.equal(table.valid_indices(), plain.valid_indices())


@pytest.mark.parametrize("key", ["split_by", "split_time"])
def test_groups_stay_together_and_the_newest_rows_are_held_out(path: Path, key: str) -> None:
    column = {"split_by": "person", "split_time": "id"}[key]
    made = [{**row, "id": str(date(2020, 1, 1) + timedelta(days=(i * 7) % NUM_ROWS))} for i, row in enumerate(ROWS)]
    write(path, made)
    train, test = load(path, **{key: column}), load(path, **{key: column}, training=False)
    parts = [train.train_indices(), train.valid_indices(), test.train_indices()]
    assert sorted(torch.cat(parts).tolist()) == list(range(NUM_ROWS))
    values = [[made[i][column] for i in part.tolist()] for part in parts]
    assert len(parts[2]) == pytest.approx(0.2 * NUM_ROWS, abs=7)
    assert len(parts[1]) == pytest.approx(0.25 * 0.8 * NUM_ROWS, abs=7)
    if key == "split_by":
        assert not set(values[0]) & set(values[1])
        assert not {*values[0], *values[1]} & set(values[2])
    else:
        assert max(values[0]) < min(values[1]) <= max(values[1]) < min(values[2])


@pytest.mark.parametrize(("key", "column"), [("split_by", "group"), ("split_time", "group")])
def test_a_split_that_leaves_nothing_is_refused(path: Path, key: str, column: str) -> None:
    write(path, [{**row, "group": "2020-01-01"} for row in ROWS])
    with pytest.raises(ConfigError, match=r"test_split: 0.2 of 300 samples leaves none to train on"):
        load(path, **{key: column})


def test_classes_are_told_by_their_labels(path: Path) -> None:
    loader = load(path, "size", columns={"age": COLUMNS["age"], "size": "class"})
    _, targets = everything(loader)
    names = ["large", "medium", "small"]
    assert torch.equal(targets, torch.tensor([names.index(row["size"]) for row in ROWS]))
    facts = loader.facts()
    assert (facts["num_classes"], facts["class_names"], loader.num_classes) == (3, names, 3)
    model = TableMLP(facts["table"], [8], num_classes=facts["num_classes"])
    assert model(next(iter(loader))[0]).shape == (16, 3)


@pytest.mark.parametrize("split", ["valid", "test"])
def test_a_label_that_was_not_trained_on_is_one_error_with_its_row(path: Path, split: str) -> None:
    train, test = load(path), load(path, training=False)
    index = int({"valid": train.valid_indices(), "test": test.train_indices()}[split][3])
    made = [{**row, "size": "huge" if i == index else row["size"]} for i, row in enumerate(ROWS)]
    write(path, made)
    text = path.read_text().splitlines()
    path.write_text("\n".join([text[0], "", *text[1:]]))  # a blank line counts
    with pytest.raises(DataError) as caught:
        load(path, "size", columns={"age": COLUMNS["age"], "size": "class"})
    where = f"row {index + 3}, column 'size': its label is not in the training split, which has large, medium, small"
    assert str(caught.value) == f"{path}: {where}"


def test_several_targets_are_columns(path: Path) -> None:
    columns = {"job": COLUMNS["job"], "price": "number"}
    loader = load(write(path, [{**row, "age": row["age"] or "1"} for row in ROWS]), ["price", "age"], columns=columns)
    _, targets = everything(loader)
    expected = [[float(row["price"]), float(row["age"] or 1)] for row in ROWS]
    assert same(targets, torch.tensor(expected))
    model = TableMLP(loader.facts()["table"], [4])
    assert model(everything(loader)[0]).shape == (NUM_ROWS, 2)
    torch.testing.assert_close(model.target_mean, targets[loader.train_indices()].mean(dim=0))


@pytest.mark.parametrize("target", ["price", "size"])
@pytest.mark.parametrize("max_memory", [4.0, 1e-7])
def test_rows_without_a_target_are_left_out_when_asked(
    target: str, max_memory: float, path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = [{**row, target: "" if i % 7 == 2 else row[target]} for i, row in enumerate(ROWS)]
    write(path, made)
    rest = write(tmp_path / "rest.csv", [row for row in made if row[target]])
    args: dict[str, Any] = {"columns": {**COLUMNS, "size": "class"} if target == "size" else COLUMNS}
    args |= {"max_memory": max_memory}
    with pytest.raises(DataError, match=rf"row 4, column '{target}': .*of a target, give `missing_target`"):
        load(path, target, **args)
    expected = load(rest, target, **args)
    for attempt in (1, 2):  # the second time it may be the converted file
        loader = load(path, target, missing_target="drop", **args)
        assert all(same(*pair) for pair in zip(everything(loader), everything(expected)))
        assert torch.equal(loader.valid_indices(), expected.valid_indices())
        assert loader.facts()["table"]["columns"] == expected.facts()["table"]["columns"]
        assert caplog.text.count("43 of 300 rows have no target, and are left out") == (
            attempt if max_memory == 4 else 1
        )
    test = load(path, target, missing_target="drop", training=False, table=loader.facts()["table"], **args)
    assert torch.equal(test.train_indices(), load(rest, target, training=False, **args).train_indices())
    assert "missing" not in loader.resolved_args["columns"].get("price", {})
    if target == "size":
        index = int(expected.valid_indices()[3])
        place = [i for i, row in enumerate(made) if row["size"]][index]
        write(path, [{**row, "size": "huge"} if i == place else row for i, row in enumerate(made)])
        with pytest.raises(DataError, match=rf": row {place + 2}, column 'size': its label is not in the training"):
            load(path, target, missing_target="drop", **args)
    write(path, [{**row, target: ""} for row in ROWS])
    with pytest.raises(DataError, match="300 of 300 rows have no target"):
        load(path, target, missing_target="drop", **args)


@pytest.mark.parametrize("scale", [None, "standard", "log"])
def test_outputs_are_in_the_targets_units(path: Path, scale: Any) -> None:
    loader = load(path)
    model = TableMLP(loader.facts()["table"], [], target_scale=scale)
    for parameter in model.layers.parameters():
        torch.nn.init.zeros_(parameter)
    targets = everything(loader)[1][loader.train_indices()].double()
    expected = {None: torch.tensor(0.0).double(), "standard": targets.mean(), "log": targets.log().mean().exp()}[scale]
    torch.testing.assert_close(model(everything(loader)[0]).double(), expected.expand(NUM_ROWS, 1), rtol=1e-6, atol=0)
    outputs = everything(loader)[1] * 1.1
    expected_loss = torch.tensor(1.1).log().square()
    torch.testing.assert_close(log_mse_loss(outputs, everything(loader)[1]), expected_loss, rtol=1e-4, atol=0)


def test_a_logarithm_of_what_has_none_is_refused(path: Path) -> None:
    write(path, [{**row, "price": "0"} if i % 3 == 0 else row for i, row in enumerate(ROWS)])
    with pytest.raises(ConfigError, match=r"arch\.args\.target_scale: log, but 'price' is not always above 0"):
        TableMLP(load(path).facts()["table"], [], target_scale="log")


def test_auto_proposes_kinds_prints_them_and_resolves_to_them(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(path, [{**row, "index": str(i), "none": "", "note": f"text {i}"} for i, row in enumerate(ROWS)])
    with caplog.at_level("INFO", "data"):
        loader = load(path, "size", columns="auto")
    chosen = loader.resolved_args["columns"]
    kinds = {name: options["kind"] for name, options in chosen.items()}
    ignored = {"id": "ignore", "index": "ignore", "none": "ignore", "note": "ignore"}
    features = {"age": "number", "city": "category", "job": "category", "when": "date", "sold": "bool"}
    assert kinds == {**features, "person": "category", "price": "number", "size": "class", **ignored}
    assert chosen["age"] == {"kind": "number", "missing": "median", "indicator": True}
    assert re.search(r"index +ignore +numbers the rows", caplog.text)
    again = load(path, "size", columns=chosen)
    assert again.fingerprint() == loader.fingerprint()
    assert again.facts() == loader.facts()
    assert again.resolved_args == loader.resolved_args


def test_what_auto_did_not_see_is_an_error_that_names_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tables.csv_source.SAMPLE_BYTES", 2000)
    write(path, [{**row, "age": "old" if i == 250 else "7"} for i, row in enumerate(ROWS)])
    with pytest.raises(DataError, match=r"row 252, column 'age': 'old' is not a finite number; its kind was proposed"):
        load(path, columns="auto")


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"age": "numbr"}, r"columns\.age\.kind: 'numbr'; did you mean 'number'"),
        ({"age": {"kind": "number", "mising": "mean"}}, r"columns\.age\.mising: unknown key; did you mean 'missing'"),
        ({"age": {"missing": "mean"}}, r"columns\.age\.kind: missing"),
        (
            {"city": {"kind": "category", "missing": "mean"}},
            r"columns\.city\.missing: 'mean'; a category allows: error",
        ),
        ({"age": {"kind": "number", "missing": "constant"}}, r"columns\.age\.constant: missing"),
        ({"age": {"kind": "number", "missing": "constant", "constant": "x"}}, r"columns\.age\.constant: 'x' is not a"),
        ({"size": "class"}, r"columns\.size\.kind: class is for a target"),
        ({"age": "ignore"}, r"columns: no column but the target is read"),
        ({"age": "number", "price": "category"}, r"columns\.price\.kind: 'category'; a target is a number or a class"),
    ],
)
def test_columns_that_make_no_sense_are_refused(path: Path, columns: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=rf"^data_loader\.args\.{expected}"):
        load(write(path, [{**row, "age": "1"} for row in ROWS[:-1]] + [{**ROWS[-1], "age": "2"}]), columns=columns)


def test_a_constant_column_and_more_columns_than_rows_train(path: Path) -> None:
    made = [{**{f"x{i}": str(i if i % 2 else i * j) for i in range(40)}, "price": str(j)} for j in range(10)]
    loader = load(write(path, made), columns={f"x{i}": "number" for i in range(40)})
    model = TableMLP(loader.facts()["table"], [4])
    outputs = model(everything(loader)[0])
    assert outputs.isfinite().all()
    assert model.encoder.std[1] == 1


# Opened again.


@pytest.fixture
def _keeps_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let small files be kept too."""
    for module in ("data_loader.csv_data", "tables.open"):
        monkeypatch.setattr(f"{module}.MIN_BYTES", 1)
    monkeypatch.setattr("base.split_cache.MIN_SAMPLES", 1)


def wait() -> None:
    """Wait for what is being kept."""
    for thread in kept_table.threading.enumerate():
        if thread.name == "keep-table":
            thread.join()


@pytest.mark.usefixtures("_keeps_all")
@pytest.mark.parametrize("split", [{}, {"split_by": "person"}, {"split_time": "id"}])
@pytest.mark.parametrize("target", ["price", "size"])
@pytest.mark.parametrize("max_memory", [4.0, 1e-7])
def test_the_second_run_gets_the_same_batches_from_the_kept_file(
    path: Path, split: dict[str, str], target: str, max_memory: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(path, [{**row, "id": str(date(2020, 1, 1) + timedelta(days=i))} for i, row in enumerate(ROWS)])
    args: dict[str, Any] = {"columns": {**COLUMNS, "size": "class"} if target == "size" else COLUMNS, **split}
    memory = load(path, target, **args, cache=False, max_memory=max_memory, cache_dir=str(path.parent / "other"))
    first = load(path, target, **args, max_memory=max_memory)
    wait()
    monkeypatch.setattr(RowEncoder, "rows", None)  # nothing is parsed
    monkeypatch.setattr("base.split_cache._draw", None)  # nor drawn
    second = load(path, target, **args, max_memory=max_memory)
    assert type(memory.dataset) is (TensorBatches if max_memory == 4 else MappedBatches)
    assert type(second.dataset) is (KeptBatches if max_memory == 4 else MappedBatches)
    assert memory.fingerprint() == first.fingerprint() == second.fingerprint()
    assert second.facts() == memory.facts()
    for one, other in zip(memory.epoch_steps(1, seed=3), second.epoch_steps(1, seed=3), strict=True):
        assert all(same(a, b) for (x, _), (y, _) in zip(one, other) for a, b in zip(x, y))
    for a, b in zip(everything(memory), everything(second)):
        assert same(a, b)
    assert torch.equal(memory.valid_indices(), second.valid_indices())


@pytest.mark.usefixtures("_keeps_all")
def test_plain_numbers_are_kept_too_unless_the_cache_is_off(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("a,y\n" + "".join(f"{i},16777217\n" for i in range(1000)))

    def plain(**kwargs: Any) -> CsvDataLoader:
        return CsvDataLoader(str(path), "y", 16, cache_dir=str(tmp_path / "cache"), **kwargs)

    plain(cache=False)
    assert not (tmp_path / "cache").exists()
    first = plain()
    wait()
    second = plain()
    assert type(second.dataset) is KeptBatches
    assert second.fingerprint() == first.fingerprint() == plain(cache=False).fingerprint()
    one, other = ([batch for step in loader.epoch_steps(2, seed=1) for batch, _ in step] for loader in (first, second))
    assert all(torch.equal(x, y) for a, b in zip(one, other, strict=True) for x, y in zip(a, b))


@pytest.mark.usefixtures("_keeps_all")
def test_a_damaged_kept_file_is_found_and_named(path: Path) -> None:
    load(path)
    wait()
    [kept] = (path.parent / "cache").glob("*.npy")
    data = bytearray(kept.read_bytes())
    data[-5] ^= 1
    kept.write_bytes(data)
    with pytest.raises(DataError, match=r"its values are damaged; delete it, and it is made again"):
        load(path).fingerprint()


@pytest.mark.usefixtures("_keeps_all")
def test_a_full_disk_is_a_warning(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (path.parent / "cache").write_text("a file where the folder belongs")
    assert load(path).n_samples == 180
    wait()
    assert "the table is not kept for the next run" in caplog.text
