"""The project's own models, losses and metrics say what does not fit them, and trying them out changes nothing."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pyarrow import csv
from torch import nn

import trainer.trainer
from example_runs import train
from faults import assert_same_run
from few_digits import on_few_digits
from model.model import MnistModel
from test_configs import CONFIGS, shipped, write_table
from trainer import Trainer
from utils import ConfigError, DataError


def left_in(directory: Path) -> list[str]:
    """Return the files below a directory, the given config aside."""
    return [str(path) for path in directory.rglob("*") if path.is_file() and path.name != "given.json"]


def small(path: Path, digits_dir: Path, folder: Path) -> dict[str, Any]:
    """Return a config that comes with the project, of one epoch on little data, saving under `folder`."""
    config = shipped(path)
    if config["data_loader"]["type"] == "MnistDataLoader":
        on_few_digits(config, digits_dir)
    else:
        args = config["data_loader"]["args"] | {"path": str(folder / "table.csv"), "batch_size": 10}
        config["data_loader"]["args"] = args
        write_table(folder / "table.csv", config["arch"]["args"].get("in_features", 1), args["target"])
        table = (folder / "table.csv").read_text()
        (folder / "table.csv").write_text(table.replace("feature0,y", "x,y"))
        if config["data_loader"]["type"] == "ParquetDataLoader":
            args["path"] = str(folder / "table.parquet")
            pq.write_table(csv.read_csv(folder / "table.csv"), args["path"])
    config["n_gpu"] = 0
    config["trainer"] |= {"epochs": 1, "save_dir": str(folder / "saved"), "ema_decay": 0.9}
    return config


PLAIN: dict[str, Any] = {}
FED = ("MnistDataLoader", "CsvDataLoader", "ParquetDataLoader")  # which `small` can give data to


def is_plain(path: Path) -> bool:
    """Whether a config is of a loader that `small` knows, and trains from its first epoch as it goes on."""
    config = shipped(path)
    return config["data_loader"]["type"] in FED and "fine_tune" not in config


KINDS: list[tuple[Path, dict[str, Any]]] = [
    *((path, PLAIN) for path in CONFIGS if is_plain(path)),
    (Path("config.json"), {"precision": "bf16", "grad_accum_steps": 2}),
]


@pytest.mark.parametrize(("path", "options"), KINDS, ids=[f"{path.stem}{'-bf16' * bool(how)}" for path, how in KINDS])
def test_a_config_of_the_project_is_warned_of_nothing_and_trains_as_without_the_trial(
    path: Path, options: dict[str, Any], digits_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_dirs = []
    with pytest.MonkeyPatch.context() as patch:
        for name in ("with", "without"):
            (tmp_path / name).mkdir()
            config = small(path, digits_dir, tmp_path / name)
            config["trainer"] |= options
            run_dirs.append(train(config))
            patch.setattr(trainer.trainer, "check_batch", lambda *_: None)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert_same_run(*run_dirs)


# What does not fit.


@pytest.fixture
def regression(tmp_path: Path, digits_dir: Path) -> dict[str, Any]:
    """Return the config of a model of one feature, on a table."""
    return small(Path("configs/csv_regression.json"), digits_dir, tmp_path)


SHAPES = r"gets outputs \[7, 1\] and targets \[7, 1\]"
BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "accuracy": ({"metrics": ["accuracy"]}, rf"metrics: accuracy {SHAPES}; wanted: scores \(N, C\)"),
    "top_k_acc": ({"metrics": ["top_k_acc"]}, rf"metrics: top_k_acc {SHAPES}; wanted: scores \(N, C\)"),
    "cross_entropy": ({"loss": "cross_entropy"}, rf"loss: cross_entropy {SHAPES}; of one class it is always 0"),
    "CrossEntropyLoss": ({"loss": "CrossEntropyLoss"}, rf"loss: cross_entropy {SHAPES}; of one class it is always 0"),
    "NLLLoss": ({"loss": "NLLLoss"}, rf"loss: nll_loss {SHAPES}; of one class it is always 0"),
    "BinaryAccuracy": ({"metrics": ["BinaryAccuracy"]}, "metrics: BinaryAccuracy wants classes"),
    "BinaryAUROC": ({"metrics": ["BinaryAUROC"]}, "metrics: BinaryAUROC wants classes"),
    "capturable": ({"optimizer": {"type": "AdamW", "args": {"lr": 0.1, "capturable": True}}}, "AdamW fails with them"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_a_regression_does_not_fit_is_told_before_anything_is_written(
    name: str, regression: dict[str, Any], tmp_path: Path
) -> None:
    change, message = BROKEN[name]
    for args in ([], ["--check"]):
        with pytest.raises(ConfigError) as caught:
            train(regression | change, *args)
        assert re.search(message, str(caught.value)), caught.value
    assert left_in(tmp_path / "saved") == []


@pytest.mark.parametrize("num_features", [2, 3, 4])
def test_a_polynomial_of_several_features_is_refused(
    num_features: int, regression: dict[str, Any], tmp_path: Path
) -> None:
    write_table(tmp_path / "table.csv", num_features, "y")
    regression["data_loader"]["args"]["features"] = [f"feature{i}" for i in range(num_features)]
    with pytest.raises(ConfigError, match=f"takes one feature, but the data has {num_features}$"):
        train(regression)
    assert left_in(tmp_path / "saved") == []


LOSSES_OF_TEN = ["L1Loss", "MSELoss", "SmoothL1Loss", "HuberLoss", "PoissonNLLLoss", "KLDivLoss", "SoftMarginLoss"]


@pytest.mark.parametrize("loss", [*LOSSES_OF_TEN, "mse_loss"])
def test_a_loss_of_numbers_on_digits_is_refused(loss: str, config: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gets outputs \[7, 10\] and targets \[7\]; wanted: both of one shape"):
        train(config | {"loss": loss})
    assert left_in(tmp_path / "saved") == []


class Normed(MnistModel):
    """One that a training batch of one sample breaks."""

    def __init__(self, **args: Any) -> None:
        super().__init__(**args)
        self.fc1_drop = nn.BatchNorm1d(50)  # type: ignore[assignment]


def test_a_last_batch_of_one_sample_is_tried(config: dict[str, Any], tmp_path: Path) -> None:
    config["data_loader"]["args"]["batch_size"] = 229  # of 230 samples
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("model.model.MnistModel", Normed)
        patch.setattr(Normed, "__module__", "model.model")
        with pytest.raises(ConfigError, match=r"more than 1 value.*training, with batches of 7 and 1 samples"):
            train(config)
    assert left_in(tmp_path / "saved") == []


@pytest.mark.parametrize("place", ["first batch", "last sample", "validation"])
def test_a_label_out_of_range_names_the_sample(place: str, config: dict[str, Any], tmp_path: Path) -> None:
    samples = []

    class Mislabelled(Trainer):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            held = self.data_loader.dataset.held_targets()
            indices = self.data_loader.valid_indices() if place == "validation" else self.data_loader.train_indices()
            samples.append(int(indices[0 if place == "first batch" else -1]))
            held[samples[-1]] = 10

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("train.Trainer", Mislabelled)
        with pytest.raises(DataError) as caught:
            train(config)
    text = f"sample {samples[0]} of the dataset: label 10, but the loss gets scores of 10 classes: 0 to 9"
    assert str(caught.value) == text
    assert left_in(tmp_path / "saved") == []
