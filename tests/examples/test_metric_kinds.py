"""A metric may be a matrix, which becomes an image, or a value for each class, which becomes a curve each."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from checkpoint.file import load_checkpoint
from data_loader.mnist import MnistDataLoader
from example_runs import evaluate, run_train, train
from few_digits import NUM_STEPS
from helpers import assert_equal, epochs_of, newest, records_of
from logger import heatmap
from model.model import MnistModel
from utils import ConfigError

METRICS = [
    "accuracy",
    {"type": "MulticlassConfusionMatrix", "name": "confusion", "args": {"num_classes": 10}},
    {"type": "MulticlassAccuracy", "name": "by_class", "args": {"num_classes": 10, "average": None}},
]


def confusion_by_hand(config: dict[str, Any], checkpoint: dict[str, Any]) -> Tensor:
    """Return how many digits of the validation split of each class (rows) a checkpoint takes for which (columns)."""
    model = MnistModel(dropout=0.0).eval()
    model.load_state_dict(checkpoint["model"])
    loader = MnistDataLoader(**config["data_loader"]["args"]).split_validation()
    assert loader is not None
    matrix = torch.zeros(10, 10, dtype=torch.int64)
    with torch.no_grad():
        for images, labels in loader:
            for label, predicted in zip(labels.tolist(), model(images).argmax(dim=1).tolist()):
                matrix[label, predicted] += 1
    return matrix


@pytest.fixture
def run_dir(config: dict[str, Any]) -> Path:
    """Return a run of two epochs with a matrix and a value for each class."""
    config["metrics"] = METRICS
    config["trainer"]["monitor"] = "off"
    return train(config)


def test_a_confusion_matrix_is_an_image_of_each_validation(config: dict[str, Any], run_dir: Path) -> None:
    events = EventAccumulator(str(run_dir), size_guidance={"images": 0}).Reload()
    assert "confusion/valid" in events.Tags()["images"]
    images = events.Images("confusion/valid")
    assert [image.step for image in images] == [NUM_STEPS, 2 * NUM_STEPS]
    for epoch, image in enumerate(images, start=1):
        matrix = confusion_by_hand(config, load_checkpoint(run_dir / f"checkpoint-epoch{epoch}.pth"))
        assert matrix.sum() == config["data_loader"]["args"]["validation_split"]
        pixels = np.asarray(Image.open(io.BytesIO(image.encoded_image_string)).convert("L"), dtype=np.float64)
        np.testing.assert_allclose(pixels, heatmap(matrix)[0].numpy() * 255, atol=1)


def test_each_class_has_a_value_and_a_curve(config: dict[str, Any], run_dir: Path) -> None:
    matrix = confusion_by_hand(config, newest(run_dir))
    accuracies = matrix.diag() / matrix.sum(dim=1).clamp(min=1)
    epoch = epochs_of(run_dir)[-1]
    assert [epoch[f"val_by_class/{i}"] for i in range(10)] == pytest.approx(accuracies.tolist())
    assert {name for name in epoch if name.startswith("by_class")} == {f"by_class/{i}" for i in range(10)}
    assert not [name for name in epoch if "confusion" in name]
    events = EventAccumulator(str(run_dir)).Reload()
    for i in range(10):
        curve = {event.step: event.value for event in events.Scalars(f"by_class/{i}/valid")}
        expected = {record["global_step"]: record[f"val_by_class/{i}"] for record in epochs_of(run_dir)}
        assert curve == pytest.approx(expected)


def test_the_curve_of_a_class_in_training_is_named_like_that_in_validation(run_dir: Path) -> None:
    tags = EventAccumulator(str(run_dir)).Reload().Tags()["scalars"]
    assert {f"by_class/{i}/train" for i in range(10)} <= set(tags)


def test_they_are_resumed_and_measured_by_test_too(config: dict[str, Any], run_dir: Path) -> None:
    part = train(config, "--set", "trainer.epochs=1")
    run_train("-r", str(part), "--set", "trainer.epochs=2")
    assert_equal(newest(run_dir)["train_metrics"], newest(part)["train_metrics"])
    assert records_of(run_dir) == records_of(part)
    measured = evaluate("-r", str(run_dir))
    assert measured.keys() == {"loss", "accuracy", *(f"by_class/{i}" for i in range(10))}


@pytest.mark.parametrize(
    ("metric", "reason"),
    [
        ({"type": "MulticlassRecall"}, "`num_classes` can only be `None`"),
        ({"type": "BinaryRecall", "args": {"threshold": 2.0}}, "`threshold` to be a float"),
    ],
)
def test_what_only_the_data_may_give_is_missed_when_that_is_there(
    config: dict[str, Any], metric: dict[str, Any], reason: str
) -> None:
    config["metrics"] = [metric]
    with pytest.raises(ConfigError, match=reason):
        train(config)
    assert not list(Path(config["trainer"]["save_dir"]).rglob("*.pth"))
