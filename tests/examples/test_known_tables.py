"""The known tables are what their sources say; their configs beat scikit-learn's linear models on the same folds."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from torch import Tensor

import train as train_script
from data_loader.make_tables import NUM_MADE_ROWS, write_tables
from data_loader.table_data import TableDataLoader
from helpers import ROOT, epochs_of, write_given
from model.table_encoder import TableEncoder
from prediction.kfold import RESULT, train_folds
from trainer import run_batch
from utils import read_json

SIZES = {"diabetes": 442, "breast_cancer": 569, "iris": 150, "wine": 178, "linnerud": 20, "flats": NUM_MADE_ROWS}
NUM_FOLDS = 5
CONFIGS = sorted((ROOT / "configs" / "tables").glob("*.json"))


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the known tables."""
    folder = tmp_path_factory.mktemp("tables")
    write_tables(folder)
    return folder


def config_of(path: Path, tables: Path, tmp_path: Path) -> dict[str, Any]:
    """Return a config that reads its table from where it is here; skip where that has to be downloaded."""
    config: dict[str, Any] = json.loads(path.read_text())
    args = config["data_loader"]["args"]
    found = [place for place in (tables / f"{path.stem}.csv", ROOT / args["path"]) if place.exists()]
    if not found:
        pytest.skip(f"{args['path']} is not here")
    args |= {"path": str(found[0]), "cache_dir": str(tmp_path / "cache")}
    config["trainer"]["save_dir"] = str(tmp_path / "saved")
    return config


@pytest.mark.parametrize("name", SIZES)
def test_a_known_table_has_its_rows(name: str, tables: Path) -> None:
    with open(tables / f"{name}.csv", newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert len(rows) == SIZES[name]
    assert {len(row) for row in rows} == {len(header)}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_config_of_a_known_table_fits_it(path: Path, tables: Path, tmp_path: Path) -> None:
    args = config_of(path, tables, tmp_path)["data_loader"]["args"]
    loader = TableDataLoader(**args)
    assert loader.split_validation() is not None
    assert TableDataLoader(**args, training=False, table=loader.facts()["table"]).n_samples > 0


def rows_for_sklearn(loader: TableDataLoader, indices: Tensor) -> tuple[Any, Any]:
    """Return what the model's layers get of the rows, and their targets, as arrays."""
    inputs, targets = loader.dataset.__getitems__(indices)
    encoder = TableEncoder(loader.facts()["table"]["columns"])
    return encoder(inputs).detach().numpy(), targets.numpy()


def linear_error(loader: TableDataLoader, key: str) -> float:
    """Return `key` of scikit-learn's linear model of the training rows, on the validation rows."""
    from sklearn.linear_model import LinearRegression, LogisticRegression
    from sklearn.metrics import log_loss

    (x, y), (v, w) = (rows_for_sklearn(loader, i) for i in (loader.train_indices(), loader.valid_indices()))
    if "num_classes" in loader.facts():
        return float(log_loss(w, LogisticRegression(max_iter=5000).fit(x, y).predict_proba(v)))
    errors = LinearRegression().fit(x, y).predict(v) - w
    return float((errors**2).mean() if key == "val_mse" else abs(errors).mean())


@pytest.mark.slow
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_beats_the_linear_model_on_the_same_folds(path: Path, tables: Path, tmp_path: Path) -> None:
    """Of five folds of what the test split leaves, each in its last epoch: no epoch is chosen by the rows it counts."""
    config = config_of(path, tables, tmp_path)
    key = config["trainer"]["monitor"].split()[1]
    parsed = train_script.parse_args(["-c", write_given(config), "-d", "cpu", "--kfold", str(NUM_FOLDS)])
    folder = train_folds(parsed, NUM_FOLDS, train_script.build_trainer, run_batch)
    ours = [epochs_of(folder.parent / run)[-1][key] for run in read_json(folder / RESULT)["runs"]]
    args = config["data_loader"]["args"] | {"validation_split": 0}
    loaders = (TableDataLoader(**args, fold=f"{number}/{NUM_FOLDS}") for number in range(1, NUM_FOLDS + 1))
    linear = [linear_error(loader, key) for loader in loaders]
    print(f"{path.stem}: {key} {fmean(ours):.4g}, of the linear model {fmean(linear):.4g}")
    assert fmean(ours) < fmean(linear)
