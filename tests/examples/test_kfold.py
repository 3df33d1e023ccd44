"""Each fold is an ordinary run; together they predict each sample once; a killed k-fold ends as one never killed."""

from __future__ import annotations

import csv
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import train as train_script
from data_loader.mnist import MnistDataLoader
from data_loader.table_data import TableDataLoader
from example_runs import train
from faults import exit_code
from helpers import ROOT, assert_equal, epochs_of, newest, status_of, write_given
from history.find import all_runs
from predict import Predictor
from prediction.kfold import PREDICTIONS, RESULT, train_folds
from processes import start_all
from trainer import run_batch
from utils import ConfigError, Stopped, read_json


def table_config(save_dir: Path, num_rows: int = 60, **trainer: Any) -> dict[str, Any]:
    """Write a table; return a config of a model that is trained on it, without the test split."""
    draw = np.random.default_rng(0)
    save_dir.mkdir(exist_ok=True)
    lines = [f"{a:.5f},{b:.5f},{a - b:.5f}" for a, b in draw.normal(size=(num_rows, 2))]
    (save_dir / "t.csv").write_text("\n".join(["a,b,y", *lines]))
    args = {"path": str(save_dir / "t.csv"), "target": "y", "batch_size": 8, "test_split": 10}
    return {
        "name": "Folds",
        "n_gpu": 0,
        "arch": {"type": "MLP", "args": {"in_features": 2, "hidden": [4], "dropout": 0.1}},
        "data_loader": {"type": "CsvDataLoader", "args": args},
        "optimizer": {"type": "Adam"},
        "loss": "mse_loss",
        "trainer": {"epochs": 2, "save_dir": str(save_dir), "monitor": "min val_loss"} | trainer,
    }


def run_folds(config: dict[str, Any], *args: str, num_folds: int = 3) -> Path:
    """Run train.py --kfold in this process; return the directory of the outcome."""
    parsed = train_script.parse_args(["-c", write_given(config), "--kfold", str(num_folds), *args])
    return train_folds(parsed, num_folds, train_script.build_trainer, run_batch)


def rows_of(folder: Path) -> list[dict[str, str]]:
    """Return the out-of-fold predictions."""
    with open(folder / PREDICTIONS, newline="") as file:
        return list(csv.DictReader(file))


def test_each_sample_is_predicted_by_a_run_that_did_not_see_it(tmp_path: Path) -> None:
    config = table_config(tmp_path)
    folder = run_folds(config)
    result, rows = read_json(folder / RESULT), rows_of(folder)
    assert len({row["row"] for row in rows}) == len(rows) == 50
    assert [int(row["row"]) for row in rows] == sorted(int(row["row"]) for row in rows)
    with open(tmp_path / "t.csv", newline="") as file:
        table = list(csv.DictReader(file))
    for number, name in enumerate(result["runs"], start=1):
        run = folder.parent / name
        own = [row for row in rows if row["fold"] == str(number)]
        predicted = Predictor.load(run)([table[int(row["row"])] for row in own])["y"]
        np.testing.assert_allclose([float(row["y_predicted"]) for row in own], predicted, rtol=1e-5, atol=1e-6)
        errors = [float(row["y_predicted"]) - float(table[int(row["row"])]["y"]) for row in own]
        assert result["metrics"]["val_loss"]["values"][number - 1] == pytest.approx(np.square(errors).mean(), rel=1e-4)
        best = min(record["val_loss"] for record in epochs_of(run))
        assert result["metrics"]["val_loss"]["values"][number - 1] == best
    assert [broken for broken in all_runs(tmp_path)[1] if broken.path == folder] == []
    values = result["metrics"]["val_loss"]["values"]
    assert result["metrics"]["val_loss"]["mean"] == pytest.approx(np.mean(values))
    assert result["metrics"]["val_loss"]["std"] == pytest.approx(np.std(values, ddof=1))
    # A fold's run is repeated by its config alone.
    again = read_json(folder.parent / result["runs"][1] / "config.json")
    again["trainer"]["save_dir"] = str(tmp_path / "again")
    (tmp_path / "again").mkdir()
    assert_equal(newest(train(again))["model"], newest(folder.parent / result["runs"][1])["model"])


def test_a_stopped_one_goes_on_and_a_whole_one_is_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run_folds(table_config(tmp_path / "whole"))
    config, done = table_config(tmp_path / "stopped"), 0
    build = train_script.build_trainer

    def build_stopping(parsed: Any) -> Any:
        nonlocal done
        trainer, step = build(parsed), 0
        save_if_due = trainer._save_if_due

        def stopping() -> None:
            nonlocal step
            step += 1
            if done == 1 and step == 3:
                signal.raise_signal(signal.SIGTERM)
            save_if_due()

        monkeypatch.setattr(trainer, "_save_if_due", stopping)
        done += 1
        return trainer

    monkeypatch.setattr(train_script, "build_trainer", build_stopping)
    with pytest.raises(Stopped):
        run_folds(config)
    monkeypatch.setattr(train_script, "build_trainer", build)
    folder = run_folds(config, "--resume-latest")
    assert (folder / PREDICTIONS).read_bytes() == (expected / PREDICTIONS).read_bytes()
    assert read_json(folder / RESULT)["metrics"] == read_json(expected / RESULT)["metrics"]
    before = {path: path.stat().st_mtime_ns for path in folder.parent.glob("*-fold*/*.pth")}
    assert run_folds(config, "--resume-latest") == folder
    assert {path: path.stat().st_mtime_ns for path in folder.parent.glob("*-fold*/*.pth")} == before
    config["optimizer"]["args"] = {"lr": 0.1}
    with pytest.raises(ConfigError, match=r"its config had another optimizer\.args\.lr"):
        run_folds(config, "--resume-latest")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--kfold", "1"], "give 2 to 1000 folds"),
        (["--kfold", "3", "--check"], "not with check"),
        (["--kfold", "60"], "fold: 1/60 of 50 samples"),
    ],
)
def test_what_cannot_be_is_refused(args: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        train_script.main(train_script.parse_args(["-c", write_given(table_config(tmp_path)), *args]))


@pytest.mark.slow
def test_several_processes_are_refused_in_one_line(tmp_path: Path) -> None:
    given = write_given(table_config(tmp_path))
    before = sorted(tmp_path.rglob("*"))
    processes = start_all(2, "-c", given, "--kfold", "3", stderr=tmp_path / "errors.txt")
    assert [exit_code(process) for process in processes] == [2, 2]
    said = "".join((tmp_path / f"errors.{number}").read_text() for number in range(2))
    assert said.splitlines() == ["--kfold: not with several processes"]
    assert sorted(path for path in tmp_path.rglob("*") if not path.name.startswith("errors")) == before


def test_classes_are_spread_evenly_and_groups_stay_together(digits_dir: Path, tmp_path: Path) -> None:
    held_out = []
    for number in range(1, 4):
        loader = MnistDataLoader(str(digits_dir), 32, source="mnist", fold=f"{number}/3")
        labels = loader.dataset.held_targets()
        assert labels is not None
        held_out.append(torch.bincount(labels[loader.valid_indices()], minlength=10))
    assert int((torch.stack(held_out).amax(0) - torch.stack(held_out).amin(0)).max()) <= 1
    draw = random.Random(0)
    rows = [f"{i},{draw.choice('abcdefg')},{draw.choice(['no', 'no', 'no', 'yes'])}" for i in range(90)]
    (tmp_path / "t.csv").write_text("\n".join(["x,town,kind", *rows]))
    towns = np.array([row.split(",")[1] for row in rows])
    kinds = np.array([row.split(",")[2] for row in rows])
    columns = {"x": "number", "town": "ignore", "kind": "class"}
    seen: list[int] = []
    for number in range(1, 4):
        for by in (None, "town"):
            args: dict[str, Any] = {"split_by": by, "columns": columns, "cache_dir": str(tmp_path), "test_split": 0}
            table = TableDataLoader(str(tmp_path / "t.csv"), "kind", 8, fold=f"{number}/3", **args)
            train, valid = table.train_indices().numpy(), table.valid_indices().numpy()
            assert sorted([*train, *valid]) == list(range(90))
            if by is None:
                seen += valid.tolist()
                assert abs((kinds[valid] == "yes").sum() - (kinds == "yes").sum() / 3) < 1
            else:
                assert not set(towns[train]) & set(towns[valid])
    assert sorted(seen) == list(range(90))


@pytest.mark.slow
def test_five_folds_killed_twice_are_those_never_killed(tmp_path: Path) -> None:
    configs = [table_config(tmp_path / name, 2000, epochs=6, save_every_steps=20) for name in ("whole", "killed")]
    expected = run_folds(configs[0], num_folds=5)
    command = [sys.executable, "train.py", "-c", write_given(configs[1]), "--kfold", "5", "--resume-latest"]
    saved = tmp_path / "killed" / "Folds"
    for num_folds in (2, 4):  # in the middle of the second, and of the fourth
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        while process.poll() is None and not list(saved.glob(f"*-fold{num_folds}/latest.pth")):
            time.sleep(0.005)
        process.kill()
        process.wait()
        assert process.returncode == -signal.SIGKILL
        assert [status_of(run)["status"] for run in saved.glob(f"*-fold{num_folds}")] == ["running"]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    (folder,) = (path.parent for path in saved.glob(f"kfold5-*/{RESULT}"))
    assert (folder / PREDICTIONS).read_bytes() == (expected / PREDICTIONS).read_bytes()
    result = json.loads((folder / RESULT).read_text())
    assert sorted(result["runs"]) == sorted({path.parent.name for path in saved.glob("*-fold*/*.pth")})
    assert len(result["runs"]) == 5
    assert result["metrics"] == read_json(expected / RESULT)["metrics"]
    for run, other in zip(result["runs"], read_json(expected / RESULT)["runs"]):
        assert_equal(newest(saved / run)["model"], newest(expected.parent / other)["model"])
        assert epochs_of(saved / run) == epochs_of(expected.parent / other)
