"""The known tables are what their sources say, and their configs beat scikit-learn's linear models on the same rows."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from data_loader.make_tables import NUM_MADE_ROWS, write_tables
from data_loader.table_data import TableDataLoader
from example_runs import run_train
from helpers import ROOT, records_of
from model.table_encoder import TableEncoder

SIZES = {"diabetes": 442, "breast_cancer": 569, "iris": 150, "wine": 178, "linnerud": 20, "flats": NUM_MADE_ROWS}
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


@pytest.mark.slow
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_beats_the_linear_model_on_the_same_validation_rows(path: Path, tables: Path, tmp_path: Path) -> None:
    from sklearn.linear_model import LinearRegression, LogisticRegression
    from sklearn.metrics import log_loss

    config = config_of(path, tables, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    run_dir = run_train("-c", str(tmp_path / "config.json"), "-d", "cpu")
    key = config["trainer"]["monitor"].split()[1]
    best = min(record[key] for record in records_of(run_dir) if record["kind"] == "epoch")
    with torch.no_grad():
        loader = TableDataLoader(**config["data_loader"]["args"])
        (x, y), (v, w) = (rows_for_sklearn(loader, i) for i in (loader.train_indices(), loader.valid_indices()))
    if "num_classes" in loader.facts():
        baseline = log_loss(w, LogisticRegression(max_iter=5000).fit(x, y).predict_proba(v))
    else:
        errors = LinearRegression().fit(x, y).predict(v) - w
        baseline = float((errors**2).mean() if key == "val_mse" else abs(errors).mean())
    assert best < baseline
