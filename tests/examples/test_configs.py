"""Every config that comes with the project trains."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any

import pytest

from data_loader.make_images import write_digits
from data_loader.make_parquet import write_shards
from data_loader.make_text import write_texts
from example_runs import run_train
from few_digits import on_few_digits
from helpers import ROOT, newest, records_of
from parse_config.reference import json_schema, with_reference
from slots import SLOTS

CONFIGS = [Path("config.json"), *sorted(path.relative_to(ROOT) for path in ROOT.glob("configs/*.json"))]


def write_table(path: Path, num_features: int, target: str) -> None:
    """Write a CSV file of 60 random rows."""
    generator = random.Random(0)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*(f"feature{i}" for i in range(num_features)), target])
        writer.writerows([generator.random() for _ in range(num_features + 1)] for _ in range(60))


CASES = [pytest.param(path, id=str(path)) for path in CONFIGS]


def train_a_step(path: Path, digits_dir: Path, tmp_path: Path) -> Path:
    """Train a config for a step, on small data where its own is not there; return the run directory."""
    config: dict[str, Any] = json.loads((ROOT / path).read_text())
    args = config["data_loader"]["args"]
    if config["data_loader"]["type"] == "MnistDataLoader":
        on_few_digits(config, digits_dir)
    elif config["data_loader"]["type"] == "ParquetDataLoader":
        write_shards(tmp_path)
        args |= {"path": str(tmp_path / "train"), "test_path": str(tmp_path / "test")}
    elif config["data_loader"]["type"] == "ImageFolderDataLoader":
        write_digits(tmp_path / "digits", 100)
        args |= {"path": str(tmp_path / "digits"), "cache_dir": str(tmp_path / "cache")}
    elif config["data_loader"]["type"] == "TextDataLoader":
        args["path"] = str(tmp_path / "reviews.csv")
        write_texts(tmp_path / "reviews.csv", 200)
    elif not (ROOT / args["path"]).exists():
        args["path"] = str(tmp_path / "table.csv")
        write_table(tmp_path / "table.csv", config["arch"]["args"]["in_features"], args["target"])
    config["trainer"]["save_dir"] = str(tmp_path / "saved")
    (tmp_path / "config.json").write_text(json.dumps(config))
    return run_train("-c", str(tmp_path / "config.json"), "-d", "cpu", "--fast-dev-run")


@pytest.mark.parametrize("path", CASES)
def test_a_config_trains_a_step(path: Path, digits_dir: Path, tmp_path: Path) -> None:
    run_dir = train_a_step(path, digits_dir, tmp_path)
    assert newest(run_dir)["position"] == {"epoch": 2, "step_in_epoch": 0, "global_step": 1}
    step, epoch = records_of(run_dir)
    assert (step["kind"], epoch["kind"]) == ("step", "epoch")
    assert step["loss"] == pytest.approx(epoch["loss"])
    assert epoch["val_loss"] > 0


def test_the_schema_and_the_reference_are_current() -> None:
    reference = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    assert with_reference(reference, SLOTS) == reference, "run make docs"
    schema, saved = json_schema(SLOTS), json.loads((ROOT / "config.schema.json").read_text(encoding="utf-8"))
    if schema["$comment"] != saved["$comment"]:
        pytest.skip(f"{saved['$comment']}, and other versions know other types")
    assert schema == saved, "run make docs"
