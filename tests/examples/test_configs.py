"""Every config that comes with the project trains, and README.md shows one for each system."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from data_loader.make_images import write_digits
from data_loader.make_parquet import write_shards
from data_loader.make_tables import TABLES, write_tables
from data_loader.make_text import write_texts
from example_runs import run_train
from few_digits import on_few_digits
from helpers import ROOT, newest, records_of
from parse_config.layers import ConfigLayers
from parse_config.reference import json_schema, with_reference
from slots import SLOTS

README = (ROOT / "README.md").read_text(encoding="utf-8") if (ROOT / "README.md").exists() else ""
ROWS = re.findall(r"^\| ([^|]+) \| `(configs/[^`]+)` \| ([^|]+) \|$", README, re.MULTILINE)
SYSTEMS = {
    *("image folders", "transforms", "samplers", "collate", "Hugging Face datasets"),
    *("torchvision models", "Hub", "transfer learning", "freezing"),
}
SHIPPED = {path.relative_to(ROOT) for path in ROOT.glob("configs/**/*.json")}
CONFIGS = [Path("config.json"), *sorted(SHIPPED | {Path(path) for _, path, _ in ROWS})]


def write_table(path: Path, num_features: int, target: str) -> None:
    """Write a CSV file of 60 random rows."""
    generator = random.Random(0)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*(f"feature{i}" for i in range(num_features)), target])
        writer.writerows([generator.random() for _ in range(num_features + 1)] for _ in range(60))


def shipped(path: Path) -> dict[str, Any]:
    """Return a config that comes with the project, with all that it extends."""
    layers = ConfigLayers()
    layers.add_file(ROOT / path)
    return layers.config


# Those of tables are trained, and for long, in test_known_tables.py; transfer_learning.json has the model of this one.
SLOW = [path for path in CONFIGS if path.parent.name == "tables" or path.name == "torchvision.json"]
CASES = [pytest.param(path, id=str(path), marks=[pytest.mark.slow] * (path in SLOW)) for path in CONFIGS]


def train_steps(path: Path, digits_dir: Path, tmp_path: Path) -> Path:
    """Train a config for up to 2 steps, on small data where its own is not there; return the run directory."""
    config = shipped(path)
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
        write_texts(tmp_path / "reviews.csv", 200, praise_every=5)
    elif path.stem in TABLES:
        args |= {"path": str(tmp_path / f"{path.stem}.csv"), "cache_dir": str(tmp_path / "cache")}
        write_tables(tmp_path)
    elif not (ROOT / args["path"]).exists():
        args["path"] = str(tmp_path / "table.csv")
        write_table(tmp_path / "table.csv", config["arch"]["args"].get("in_features", 11), args["target"])
    config["trainer"] |= {"save_dir": str(tmp_path / "saved"), "epochs": 1, "limit_batches": 2, "log_every_steps": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return run_train("-c", str(tmp_path / "config.json"), "-d", "cpu")


@pytest.mark.parametrize("path", CASES)
def test_a_config_trains(path: Path, digits_dir: Path, tmp_path: Path) -> None:
    run_dir = train_steps(path, digits_dir, tmp_path)
    *steps, epoch = records_of(run_dir)
    assert newest(run_dir)["position"] == {"epoch": 2, "step_in_epoch": 0, "global_step": len(steps)}
    assert 1 <= len(steps) <= 2
    assert {step["kind"] for step in steps} == {"step"}
    assert epoch["kind"] == "epoch"
    assert len(steps) > 1 or epoch["loss"] == pytest.approx(steps[0]["loss"])
    assert path.stem == "gan" or epoch["val_loss"] > 0  # which has nothing to validate


@pytest.mark.skipif(not README.startswith("# PyTorch template"), reason="README.md is another project's")
def test_every_system_has_a_row() -> None:
    assert {name for systems, _, _ in ROWS for name in systems.split(", ")} == SYSTEMS


@pytest.mark.slow
@pytest.mark.parametrize(("path", "note"), [row[1:] for row in ROWS])
def test_the_commands_of_a_row_are_all_that_its_config_needs(path: str, note: str, tmp_path: Path) -> None:
    for name in ("configs", "data_loader"):  # whose files configs name by their paths
        (tmp_path / name).symlink_to(ROOT / name)
    env = os.environ | {
        "PYTHONPATH": str(ROOT),
        "https_proxy": "http://127.0.0.1:9",
        "http_proxy": "http://127.0.0.1:9",
    }
    commands = [command.split() for command in re.findall(r"`python ([^`]+)`", note)]
    for command in [*commands, [str(ROOT / "train.py"), "-c", path, "--fast-dev-run"]]:
        subprocess.run([sys.executable, *command], cwd=tmp_path, env=env, timeout=300, check=True)
    [status] = tmp_path.glob("saved/*/*/status.json")
    assert json.loads(status.read_text())["status"] == "completed"


def test_the_schema_and_the_reference_are_current() -> None:
    reference = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    assert with_reference(reference, SLOTS) == reference, "run make docs"
    schema, saved = json_schema(SLOTS), json.loads((ROOT / "config.schema.json").read_text(encoding="utf-8"))
    if schema["$comment"] != saved["$comment"]:
        pytest.skip(f"{saved['$comment']}, and other versions know other types")
    assert schema == saved, "run make docs"
