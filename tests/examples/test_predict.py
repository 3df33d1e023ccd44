"""Predictions are test.py's outputs, whatever the form of the input; bad input is told by its place."""

from __future__ import annotations

import csv
import json
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor

import predict as predict_script
import trainer.evaluation
from data_loader.csv_data import CsvDataLoader
from data_loader.mnist import MnistDataLoader
from data_loader.table_data import TableDataLoader
from example_runs import evaluate, train
from helpers import ROOT, newest
from predict import Predictor, load_model
from tables.new_csv import CsvFormat, csv_chunks
from tables.number_encoder import NumberEncoder
from utils import CheckpointError, DataError, UserError

WORDS = ["plain", "with, comma", 'a "quote"', "two\nlines", "", "-5", "é"]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a CSV file with features x0 to x2 among other columns, and targets y."""
    path = tmp_path_factory.mktemp("table") / "train.csv"
    write_rows(path, np.random.default_rng(0).normal(size=(200, 3)), with_target=True)
    return path


def write_rows(path: Path, features: np.ndarray, with_target: bool = False) -> None:
    names = ["x0", "x1", "x2"]
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["x1", "id", "x0", "note", "x2", *(["y"] if with_target else [])])
        for i, row in enumerate(features.tolist()):
            cells = dict(zip(names, row))
            given = [cells["x1"], f"{i:04d}", cells["x0"], WORDS[i % len(WORDS)], cells["x2"]]
            writer.writerow([*given, *([sum(row)] if with_target else [])])


def table_config(table: Path, save_dir: Path) -> dict[str, Any]:
    args = {"path": str(table), "target": "y", "features": ["x0", "x1", "x2"], "batch_size": 32}
    return {
        "name": "Table",
        "n_gpu": 0,
        "arch": {"type": "MLP", "args": {"in_features": 3, "hidden": [16]}},
        "data_loader": {"type": "CsvDataLoader", "args": args | {"validation_split": 0.2, "test_split": 0.5}},
        "optimizer": {"type": "Adam"},
        "loss": "mse_loss",
        "trainer": {"epochs": 2, "save_dir": str(save_dir), "monitor": "min val_loss", "ema_decay": 0.9},
    }


@pytest.fixture(scope="module")
def run(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run that was trained on the table."""
    return train(table_config(table, tmp_path_factory.mktemp("runs")))


@pytest.fixture(scope="module")
def expected(run: Path) -> tuple[Tensor, Tensor]:
    """Return what test.py computes: the inputs and the outputs of the whole test split."""
    return outputs_in_test(run)


def outputs_in_test(run: Path) -> tuple[Tensor, Tensor]:
    """Run test.py; return the inputs and the outputs of all its batches."""
    inputs, outputs = [], []
    run_batch = trainer.evaluation.run_batch

    def recording(model: Any, criterion: Any, batch: Any) -> Any:
        result = run_batch(model, criterion, batch)
        inputs.append(batch[0])
        outputs.append(result.outputs)
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.evaluation, "run_batch", recording)
        evaluate("-r", str(run))
    return torch.cat(inputs), torch.cat(outputs)


def predict(*args: object) -> int:
    """Run predict.py's main in this process; return the exit code."""
    return predict_script.main(predict_script.parse_args([str(arg) for arg in args]))


def test_the_outputs_are_those_of_test(run: Path, expected: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    features, outputs = expected
    assert torch.equal(Predictor.load(run).outputs(features), outputs)
    largest = float(outputs.abs().max())
    for size in (1, 7, 512):
        other = Predictor.load(run, batch_size=size).outputs(features)
        torch.testing.assert_close(other, outputs, rtol=1e-6, atol=1e-6 * largest)
    write_rows(tmp_path / "new.csv", features.double().numpy())
    for name in ("out.csv", "out.parquet"):
        assert predict("-r", run, "--input", tmp_path / "new.csv", "--output", tmp_path / name, "--id", "id") == 0
    written = pq.read_table(tmp_path / "out.parquet")
    assert written.column_names == ["id", "y"]
    assert written["id"].to_pylist() == [f"{i:04d}" for i in range(len(features))]
    assert torch.equal(torch.from_numpy(written["y"].to_numpy()), outputs.squeeze(1))
    with open(tmp_path / "out.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == written["id"].to_pylist()
    assert [np.float32(row["y"]) for row in rows] == written["y"].to_pylist()


def test_rows_of_every_form_are_the_same_rows(run: Path, expected: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    features, outputs = expected
    features, outputs = features[:20], Predictor.load(run).outputs(features[:20])
    columns = {f"x{i}": features[:, i].tolist() for i in range(3)} | {"other": ["text"] * 20}
    rows = [dict(zip(columns, row)) for row in zip(*columns.values())]
    frame = pa.table(columns)
    predictor = Predictor.load(run)
    for values in (features, features.numpy(), columns, rows, frame, frame.to_batches()[0], DataFrame(frame)):
        assert torch.equal(predictor.outputs(values), outputs)
        assert predictor(values)["y"].tolist() == outputs.squeeze(1).tolist()
    for one in (features[0], rows[0], [rows[0]]):
        torch.testing.assert_close(predictor.outputs(one), outputs[:1], rtol=1e-5, atol=1e-6)
    (tmp_path / "new").mkdir()
    for i, part in enumerate((frame.slice(0, 7), frame.slice(7, 13))):
        pq.write_table(part, tmp_path / "new" / f"{i}.parquet", row_group_size=5)
    assert predict("-r", run, "--input", tmp_path / "new", "--output", tmp_path / "out.parquet") == 0
    assert pq.read_table(tmp_path / "out.parquet")["y"].to_pylist() == outputs.squeeze(1).tolist()


class DataFrame:
    """What pandas, polars and others share: the protocol of Arrow."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.table.__arrow_c_stream__(requested_schema)


GOOD = {"x0": 1.0, "x1": 2.0, "x2": 3.0}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"x0": 1, "x1": 2}, "has no column 'x2'; did you mean"),
        ([GOOD, GOOD | {"x1": "abc"}], "row 1, column 'x1': 'abc' is not a finite number"),
        ([GOOD, GOOD | {"x1": None}], "row 1, column 'x1': a null is not a finite number"),
        (
            [GOOD, GOOD | {"x1": float("nan")}],
            "row 1, column 'x1': nan' is not a finite number".replace("nan'", "'nan'"),
        ),
        ([GOOD | {"x2": 1e300}], r"row 0, column 'x2': '1e\+300' is not a finite number"),
        ([GOOD, {"x0": 1, "x1": 2}], "row 1: has no column 'x2'"),
        ({"x0": [1, 2], "x1": [1], "x2": [1]}, "the columns have 2, 1, 1 rows"),
        ([], "there is no row"),
        (torch.zeros(2, 4), r"an array \[2, 4\]; the model takes \(N, 3\): x0, x1, x2"),
        (torch.full((1, 3), torch.inf), "row 0, column 'x0': 'inf' is not a finite number"),
        ("new.csv", "give a dict of columns"),
        (pa.table({"x0": [1], "x1": [True], "x2": [1]}), "column 'x1' is bool"),
    ],
)
def test_bad_rows_in_memory_are_named(run: Path, values: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Predictor.load(run)(values)


BAD_CSV = {
    "missing file": (None, "cannot be read: No such file"),
    "empty": (b"", "is empty"),
    "header alone": (b"id,x0,x1,x2\n", "nothing to predict for"),
    "no header": (b"1,2,3,4\n", "row 1: holds only numbers"),
    "missing column": (b"id,x0,x1,X2\n1,2,3,4\n", "has no column 'x2'; did you mean 'X2'?"),
    "missing id": (b"ID,x0,x1,x2\n1,2,3,4\n", "has no column 'id'; did you mean 'ID'?"),
    "two of a name": (b"id,x0,x0,x1,x2\n1,2,3,4,5\n", "has 2 columns called 'x0'"),
    "text": (b"id,x0,x1,x2\n1,2,3,4\n1,2,abc,4\n", "row 3, column 'x1': 'abc' is not a finite number"),
    "too large": (b"id,x0,x1,x2\n1,2,1e400,4\n", "row 2, column 'x1': '1e400' is not a finite number"),
    "decimal comma": (b'id,x0,x1,x2\n1,"2,5",3,4\n', "row 2, column 'x0': '2,5' is not a finite number"),
    "gap": (b"id,x0,x1,x2\n1,2,,4\n", "row 2, column 'x1': '' is not a finite number"),
    "ragged": (b"id,x0,x1,x2\n1,2,3,4\n\n1,2,3\n", "row 4: 3 columns, the header has 4"),
    "open quote": (b'id,x0,x1,x2\n"1,2,3,4\n1,2,3,4\n1,2,3,4\n', "is a closing quote missing?|is its closing quote"),
    "latin-1": ("id,x0,x1,x2\né,2,3,4\n".encode("latin-1"), "row 2, column 'id': is not UTF-8"),
    "UTF-16": ("id,x0,x1,x2\n1,2,3,4\n".encode("utf-16"), "cannot be read"),
    "other delimiter": (b"id;x0;x1;x2\n1;2;3;4\n", "has no column 'x0'; allowed: id;x0;x1;x2"),
    "NUL": (b"id,x0,x1,x2\n1,2,3\0,4\n", "not a finite number|NUL"),
}


@pytest.mark.parametrize("case", BAD_CSV)
def test_a_bad_file_is_one_line_and_no_output(case: str, run: Path, tmp_path: Path) -> None:
    content, message = BAD_CSV[case]
    if content is not None:
        (tmp_path / "new.csv").write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        predict("-r", run, "--input", tmp_path / "new.csv", "--output", tmp_path / "out.csv", "--id", "id")
    assert str(caught.value).startswith(str(tmp_path / "new.csv"))
    assert len(str(caught.value).splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["new.csv"][: content is not None]


def test_bad_rows_are_skipped_when_asked_and_named(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tables.new_csv.BLOCK_BYTES", 40)
    bad = {5: "a,1,x,3,n", 11: "b,1,2", 12: "c,nan,2,3,n", 40: "d,1,2,3,n,6"}
    lines = ["id,x0,x1,x2,note"] + [bad.get(row, f"{row},{row},2,3,n") for row in range(2, 60)]
    (tmp_path / "new.csv").write_text("\n".join(lines))
    args = ["-r", run, "--input", tmp_path / "new.csv", "--id", "id"]
    assert predict(*args, "--output", tmp_path / "out.parquet", "--skip-bad-rows") == predict_script.ROWS_SKIPPED
    written = pq.read_table(tmp_path / "out.parquet")
    good = [row for row in range(2, 60) if row not in bad]
    assert written["id"].to_pylist() == [str(row) for row in good]
    rows = torch.tensor([[row, 2.0, 3.0] for row in good])
    assert written["y"].to_pylist() == Predictor.load(run)(rows)["y"].tolist()
    captured = capsys.readouterr()
    assert [int(line.split("row ")[1].split(",")[0].split(":")[0]) for line in captured.err.splitlines()] == sorted(bad)
    assert f"{len(good)} predictions, 4 skipped" in captured.out
    pq.write_table(pa.table({"x0": [1.0, None], "x1": [1.0, 2.0], "x2": [1, 2]}), tmp_path / "new.parquet")
    args = ["-r", run, "--input", tmp_path / "new.parquet", "--output", tmp_path / "out.csv"]
    with pytest.raises(DataError, match="row group 0, row 1, column 'x0': a null is not a finite number"):
        predict(*args)
    assert predict(*args, "--skip-bad-rows") == predict_script.ROWS_SKIPPED


@pytest.mark.parametrize("seed", range(30))
def test_a_file_is_read_as_the_csv_module_reads_it(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(seed)
    monkeypatch.setattr("tables.new_csv.BLOCK_BYTES", draw.choice([1, 10, 100, 1000]))
    end, path = draw.choice(["\n", "\r\n"]), tmp_path / "new.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator=end, quoting=draw.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
        writer.writerow(["note", "x"])
        for i in range(draw.randrange(1, 50)):
            writer.writerow([draw.choice(WORDS), draw.choice([i, i / 7, f" {i}", "bad" if seed % 2 else i])])
            file.write(end * draw.choice([0, 0, 0, 1]))
    with open(path, newline="", encoding="utf-8") as file:
        rows = [(number, row) for number, row in enumerate(csv.reader(file), start=1) if row][1:]
    chunks = list(csv_chunks(path, CsvFormat(), NumberEncoder(["x"]), ["note", "x"], ["y"]))
    good = [row for _, row in rows if row[1] != "bad"]
    kept = pa.concat_tables([chunk.kept for chunk in chunks])
    assert list(zip(kept["note"].to_pylist(), kept["x"].to_pylist(), strict=True)) == [tuple(row) for row in good]
    found = torch.cat([chunk.inputs for chunk in chunks])
    assert torch.equal(found, torch.tensor([[float(row[1])] for row in good]).reshape(-1, 1))
    mistakes = [f"{path}: row {n}, column 'x': 'bad' is not a finite number" for n, row in rows if row[1] == "bad"]
    assert [mistake for chunk in chunks for mistake in chunk.mistakes] == mistakes


def test_a_kept_target_keeps_its_name(run: Path, table: Path, tmp_path: Path) -> None:
    assert predict("-r", run, "--input", table, "--output", tmp_path / "out.parquet", "--id", "y") == 0
    assert pq.read_table(tmp_path / "out.parquet").column_names == ["y", "y_predicted"]


def test_the_input_is_not_overwritten(run: Path, table: Path) -> None:
    before = table.read_bytes()
    with pytest.raises(UserError, match="is the input"):
        predict("-r", run, "--input", table, "--output", table)
    assert table.read_bytes() == before


# Tables with columns of any kind.

KINDS = {"size": "number", "town": "category", "built": "date", "is_new": "bool", "price": "number"}
CLASSES = {"kind": "class"}


def write_table(path: Path, end: str = "\n", encoding: str = "utf-8", header: bool = True) -> list[dict[str, str]]:
    """Write 120 rows of all kinds; return them as text."""
    draw = random.Random(0)
    rows = []
    for i in range(120):
        row = {"size": f"{draw.uniform(10, 99):.1f}" if i % 9 else "NA", "town": draw.choice(["Köln", "a, b", "Ulm"])}
        row |= {"built": f"19{draw.randrange(10, 99)}-03-0{draw.randrange(1, 9)}", "is_new": draw.choice(["yes", "no"])}
        rows.append(row | {"price": f"{draw.uniform(1, 9):.2f}", "kind": draw.choice(["flat", "=house", "-5"])})
    with open(path, "w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator=end, delimiter=";")
        if header:
            writer.writeheader()
        writer.writerows(rows)
    return rows


def config_of_every_kind(path: Path, target: str, encoding: str, names: list[str] | None) -> dict[str, Any]:
    """Return the config of a model of the rows that `write_table` wrote; `names` where they have no header."""
    columns = (KINDS if target == "price" else {**KINDS, "price": "ignore"} | CLASSES) | {
        "size": {"kind": "number", "missing": "mean"}
    }
    columns |= {"kind": "ignore"} if target == "price" else {}
    args: dict[str, Any] = {
        "path": str(path),
        "target": target,
        "columns": columns,
        "missing_values": ["NA"],
    }
    args |= {"delimiter": ";", "batch_size": 32, "encoding": encoding, "cache_dir": str(path.parent / "cache")}
    args |= {"header": False, "names": names} if names else {}
    config = table_config(path, path.parent)
    config |= {"arch": {"type": "TableMLP", "args": {"hidden": [8]}}}
    config["loss"] = "mse_loss" if target == "price" else "cross_entropy"
    config["data_loader"] = {"type": "TableDataLoader", "args": args | {"validation_split": 0.2, "test_split": 0.5}}
    return config


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
@pytest.mark.parametrize("target", ["price", "kind"])
def test_rows_of_every_kind_are_encoded_as_in_training(
    target: str, encoding: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    header = encoding == "utf-8"
    rows = write_table(tmp_path / "t.csv", encoding=encoding, header=header)
    config = config_of_every_kind(tmp_path / "t.csv", target, encoding, None if header else list(rows[0]))
    run = train(config)
    predictor = Predictor.load(run)
    inputs, outputs = outputs_in_test(run)
    assert torch.equal(predictor._outputs(inputs), outputs)

    everything = predictor.outputs(rows)
    indices = TableDataLoader(**config["data_loader"]["args"], training=False).train_indices()
    torch.testing.assert_close(everything[indices], outputs, rtol=1e-5, atol=1e-6)
    out = tmp_path / "out.parquet"
    assert predict("-r", run, "--input", tmp_path / "t.csv", "--output", out, "--id", "size", "--id", "town") == 0
    written = pq.read_table(out)
    assert written["size"].to_pylist() == [row["size"] for row in rows]
    assert written["town"].to_pylist() == [row["town"] for row in rows]
    if target == "price":
        assert written["price"].to_pylist() == everything.squeeze(1).tolist()
    else:
        names = ["-5", "=house", "flat"]
        assert written["kind"].to_pylist() == [names[i] for i in everything.argmax(1).tolist()]
        assert written.column_names[2:] == ["kind", *(f"p_{name}" for name in names)]
    with pytest.raises(DataError, match=r"row 1, column 'built': 'soon' is not"):
        predictor([rows[0], rows[1] | {"built": "soon"}])
    lines = (tmp_path / "t.csv").read_text(encoding).splitlines()
    broken = [*lines[:5], lines[5].replace("yes", "maybe").replace("no", "maybe"), *lines[6:]]
    (tmp_path / "t.csv").write_text("\n".join(broken), encoding)
    command = ["-r", run, "--input", tmp_path / "t.csv", "--output", out]
    with pytest.raises(DataError, match=r"t.csv: row 6, column 'is_new': 'maybe' is not"):
        predict(*command)
    assert predict(*command, "--skip-bad-rows") == 8
    assert "t.csv: row 6, column" in capsys.readouterr().err
    assert pq.read_table(out).num_rows == 119


# The model.


def test_the_weights_are_the_averages_and_a_copied_checkpoint_is_enough(run: Path, tmp_path: Path) -> None:
    state = newest(run)["ema"]["model"]
    model = load_model(run / "latest.pth")
    assert not model.training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    (tmp_path / "mine.pth").write_bytes((run / "latest.pth").read_bytes())
    other = load_model(tmp_path / "mine.pth")
    assert all(torch.equal(value, state[name]) for name, value in other.state_dict().items())
    with pytest.raises(CheckpointError, match="no checkpoint"):
        load_model(tmp_path / ".")


@pytest.mark.slow
def test_three_lines_are_enough_in_another_directory(run: Path, tmp_path: Path) -> None:
    rows = [{"x0": 0.5, "x1": -1.25, "x2": 3.0, "note": "none"}, {"x0": 1, "x1": 2, "x2": 3}]
    lines = ["from predict import Predictor", f"predictor = Predictor.load({str(run)!r})"]
    lines += [f"print(predictor({rows!r})['y'].tolist())"]
    lines += ["from predict import load_model", f"print(next(load_model({str(run)!r}).parameters()).shape)"]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", "\n".join(lines)]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    said, shape = done.stdout.splitlines()
    assert json.loads(said) == Predictor.load(run)(rows)["y"].tolist()
    assert (shape, done.stderr) == ("torch.Size([16, 3])", "")
    assert list(tmp_path.iterdir()) == []


def test_a_predictor_changes_nothing_of_the_process_and_serves_threads(run: Path) -> None:
    def state() -> tuple[Any, ...]:
        modes = (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_num_threads())
        return (*modes, torch.get_default_dtype(), torch.get_rng_state().tolist(), random.getstate())

    before = state()
    predictor = Predictor.load(run)
    rows = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    outputs = [predictor.outputs(rows[i : i + 1]) for i in range(64)]
    found: dict[int, Tensor] = {}

    def serve(i: int) -> None:
        found[i] = predictor.outputs(rows[i : i + 1])

    threads = [threading.Thread(target=serve, args=(i,)) for i in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[i], outputs[i]) for i in range(64))
    assert not predictor.model.training
    assert state() == before


# Images.


def test_images_are_read_as_in_training(config: dict[str, Any], digits_dir: Path, tmp_path: Path) -> None:
    config["trainer"] |= {"epochs": 1}
    run = train(config)
    loader = MnistDataLoader(str(digits_dir), 32, training=False, source="mnist")
    inputs, _ = loader.dataset.__getitems__(torch.arange(len(loader.dataset)))
    outputs = Predictor.load(run).outputs
    raw = (inputs[:, 0] * 0.3081 + 0.1307).mul(255).round().to(torch.uint8)  # (N, 28, 28)
    model = load_model(run)
    with torch.no_grad():
        expected = torch.cat([model(batch) for batch in inputs.split(32)])
    folder = tmp_path / "new"
    (folder / "b").mkdir(parents=True)
    names = [f"{'b/' * (i % 2)}{i:02d}.png" for i in range(len(raw))]
    for name, pixels in zip(names, raw.numpy()):
        Image.fromarray(pixels).convert("RGB" if name < "05" else "L").save(folder / name)
    pictures = [Image.fromarray(pixels) for pixels in raw.numpy()]
    for images in (raw, raw.numpy(), raw.unsqueeze(1), pictures, [folder / name for name in names], list(raw.numpy())):
        assert torch.equal(outputs(images), expected)
    torch.testing.assert_close(outputs(folder / names[3]), expected[3:4], rtol=1e-5, atol=1e-6)

    assert predict("-r", run, "--input", folder, "--output", tmp_path / "out.parquet") == 0
    written = pq.read_table(tmp_path / "out.parquet")
    assert written.column_names == ["file", "class", *(f"p_{i}" for i in range(10))]
    assert written["file"].to_pylist() == sorted(names)
    order = [names.index(name) for name in sorted(names)]
    assert written["class"].to_pylist() == expected[order].argmax(1).tolist()
    np.testing.assert_allclose(written["p_3"].to_numpy(), expected[order].exp()[:, 3], rtol=1e-5)

    Image.fromarray(raw[0].numpy()[:20]).save(folder / "a.png")
    (folder / "c.png").write_bytes((folder / names[0]).read_bytes()[:60])
    with pytest.raises(DataError, match=r"a.png: is \[1, 20, 28\]; the model takes 28x28 pixels"):
        predict("-r", run, "--input", folder, "--output", tmp_path / "out.csv")
    assert predict("-r", run, "--input", folder, "--output", tmp_path / "out.csv", "--skip-bad-rows") == 8
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 1 + len(names)
    with pytest.raises(DataError, match="pixels are uint8"):
        outputs(raw.float())


def write_pictures(folder: Path, count: int, seed: int) -> list[Path]:
    """Write pictures of two classes, of different sizes, formats and modes, some on their side; return their paths."""
    draw, paths = np.random.default_rng(seed), []
    for i in range(count):
        image = Image.fromarray(draw.integers(0, 256, (*draw.integers(20, 90, 2), 3), np.uint8))
        image = image.convert(["RGB", "L", "P", "RGBA"][i % 4])
        path = folder / ["cat", "dog"][i * 2 // count] / f"{i:03}.{'png' if i % 4 > 1 else 'jpg'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        exif[0x0112] = 6 if i % 3 else 1  # whether the camera was held on its side
        image.save(path, exif=exif)
        paths.append(path)
    return paths


def test_pictures_are_those_of_validation(tmp_path: Path) -> None:
    write_pictures(tmp_path / "pictures" / "train", 24, seed=1)
    paths = write_pictures(tmp_path / "pictures" / "test", 20, seed=2)
    args = {"path": str(tmp_path / "pictures"), "size": [40, 36], "batch_size": 8, "validation_split": 0.2}
    args["train_transform"] = [{"type": "RandomCrop", "args": {"size": 28}}, {"type": "Grayscale"}]
    args["valid_transform"] = [{"type": "CenterCrop", "args": {"size": 28}}, {"type": "Grayscale"}]
    config = table_config(tmp_path, tmp_path / "saved") | {"loss": "nll_loss"}
    config["arch"] = {"type": "MnistModel", "args": {"num_classes": 2}}
    config["data_loader"] = {"type": "ImageFolderDataLoader", "args": args}
    run = train(config)
    inputs, outputs = outputs_in_test(run)
    predictor = Predictor.load(run)
    assert torch.equal(predictor.inputs(paths), inputs)
    assert torch.equal(predictor.outputs(paths), outputs)
    opened = [Image.open(path) for path in paths]
    assert torch.equal(predictor.outputs(opened), outputs)
    torch.testing.assert_close(predictor.outputs(paths[3]), outputs[3:4], rtol=1e-5, atol=1e-6)

    out = tmp_path / "out.parquet"
    assert predict("-r", run, "--input", tmp_path / "pictures" / "test", "--output", out) == 0
    written = pq.read_table(out)
    assert written.column_names == ["file", "class", "p_cat", "p_dog"]
    assert [tmp_path / "pictures" / "test" / name for name in written["file"].to_pylist()] == paths
    assert torch.equal(torch.from_numpy(written["p_dog"].to_numpy()), outputs.exp()[:, 1])
    assert predict("-r", run, "--input", paths[3], "--output", out) == 0
    assert pq.read_table(out)["p_dog"].to_pylist() == pytest.approx([float(outputs[3, 1].exp())], rel=1e-5)
    bad = tmp_path / "pictures" / "test" / "cat" / "000.jpg"
    bad.write_bytes(bad.read_bytes()[:100])
    with pytest.raises(DataError, match=r"cat/000\.jpg: cannot be decoded: .*; --skip-bad-rows leaves such rows out"):
        predict("-r", run, "--input", tmp_path / "pictures", "--output", out)
    with pytest.raises(DataError, match=r"is \[3, 20, 20\]; the model takes 3x40x36 pixels; PIL images are resized"):
        predictor.outputs(torch.zeros(3, 20, 20, dtype=torch.uint8))


def test_transforms_of_validation_are_applied_to_new_digits(config: dict[str, Any], digits_dir: Path) -> None:
    config["trainer"] |= {"epochs": 1}
    config["data_loader"]["args"]["valid_transform"] = [{"type": "RandomInvert", "args": {"p": 1.0}}]
    run = train(config)
    inputs, outputs = outputs_in_test(run)
    raw = 255 - (inputs * 0.3081 + 0.1307).mul(255).round().to(torch.uint8)
    predictor = Predictor.load(run)
    assert torch.equal(predictor.inputs(raw), inputs)
    assert torch.equal(predictor.outputs(raw), outputs)


# Faults.


@pytest.mark.slow
def test_a_kill_leaves_the_output_as_it_was(run: Path, tmp_path: Path) -> None:
    with open(tmp_path / "new.csv", "w") as file:
        file.write("x0,x1,x2\n")
        for _ in range(400):
            file.write("1.25,2.5,3.75\n" * 1000)
    (tmp_path / "out.csv").write_text("before")
    args = ["-r", str(run), "--input", str(tmp_path / "new.csv"), "--output", str(tmp_path / "out.csv")]
    process = subprocess.Popen([sys.executable, "predict.py", *args], cwd=ROOT, stdout=subprocess.DEVNULL)
    while process.poll() is None and not list(tmp_path.glob(".out.csv.*.tmp")):
        time.sleep(0.001)
    process.kill()
    process.wait()
    assert process.returncode == -9
    assert (tmp_path / "out.csv").read_text() == "before"


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(run: Path, tmp_path: Path) -> None:
    code = "import sys, predict; from utils.device import peak_memory; import torch; "
    code += "predict.main(predict.parse_args()); print(peak_memory(torch.device('cpu')) >> 20)"
    peaks = []
    for num_rows in (20_000, 2_000_000):
        with open(tmp_path / "new.csv", "w") as file:
            file.write("id,x0,x1,x2\n")
            for i in range(num_rows):
                file.write(f"{i},{i / 7:.4f},2.5,3.75\n")
        args = ["-r", str(run), "--input", str(tmp_path / "new.csv"), "--output", str(tmp_path / "out.csv")]
        args += ["--id", "id", "--batch-size", "512"]
        done = subprocess.run([sys.executable, "-c", code, *args], cwd=ROOT, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout.split()[-1]))
    assert peaks[1] - peaks[0] < 60, peaks


def test_a_run_knows_its_features_without_its_data(table: Path, tmp_path: Path) -> None:
    data = tmp_path / "t.csv"
    data.write_text("b,y,a\n1,2,3\n4,5,6\n7,8,9\n")
    config = table_config(data, tmp_path)
    config["arch"]["args"]["in_features"] = 2
    config["data_loader"]["args"] = {"path": str(data), "target": "y", "batch_size": 2, "validation_split": 1}
    run = train(config)
    data.unlink()
    assert Predictor.load(run).inputs({"a": 3, "c": 0, "b": 1}).tolist() == [[1, 3]]
    data.write_text("b,y,a\n1,2,3\n")
    assert CsvDataLoader.new_inputs({"path": str(data), "target": "y"}, {})({"a": 3, "b": 1}).tolist() == [[1, 3]]
