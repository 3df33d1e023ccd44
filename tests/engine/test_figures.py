"""Figures show the numbers that they are drawn from, and are drawn whatever a model gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from logger import TensorboardWriter, figures
from logger.canvas import BLUE, LEFT, TOP, ticks
from logger.validation import Sample, draw_validation, softmax

RNG = np.random.default_rng(0)


def test_a_confusion_matrix_counts_true_classes_by_row() -> None:
    true, predicted = RNG.integers(0, 4, 200), RNG.integers(0, 4, 200)
    counts = figures.confusion(predicted, true, 4)
    expected = [[int(((true == row) & (predicted == column)).sum()) for column in range(4)] for row in range(4)]
    assert counts.tolist() == expected


def test_the_colour_of_a_cell_is_its_share_of_the_row() -> None:
    image = figures.confusion_matrix(np.array([[3, 0], [0, 0]]))
    side = 420 // 2
    corners = [image.getpixel((LEFT + 5 + x * side, TOP + 5 + y * side)) for y in (0, 1) for x in (0, 1)]
    assert corners == [BLUE, (255, 255, 255), (255, 255, 255), (255, 255, 255)]


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3.7, 12), (0, 1e-9), (5e8, 5.1e8)])
def test_ticks_are_a_few_numbers_in_the_range(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 3 <= len(found) <= 8
    assert found.min() >= low - 1e-12 * abs(low)
    assert found.max() <= high * (1 + 1e-12)


def sample(kind: str) -> Sample:
    """Return a sample of few or odd predictions."""
    images = RNG.random((3, 1, 5, 9), dtype=np.float32)
    scores, classes = RNG.normal(size=(50, 12)).astype(np.float32), RNG.integers(0, 12, 50)
    values = RNG.normal(size=(50, 2)).astype(np.float32)
    worst = {"worst": (images, scores[:3], classes[:3])}
    return {
        "classifier": Sample(scores, classes, worst),
        "ignored targets": Sample(scores, np.where(classes < 3, -100, classes), {}),
        "only ignored targets": Sample(scores, np.full(50, -100), {}),
        "one class": Sample(scores[:1], classes[:1], worst),
        "very many classes": Sample(RNG.normal(size=(4, 300)).astype(np.float32), np.arange(4), {}),
        "many classes": Sample(RNG.normal(size=(90, 60)).astype(np.float32), RNG.integers(0, 60, 90), {}),
        "coloured images": Sample(scores, classes, {"best": (images.repeat(3, 1) * np.nan, scores[:3], classes[:3])}),
        "NaN scores": Sample(scores * np.nan, classes, worst),
        "regression": Sample(values, values + 1, {"worst": (images, values[:3], values[:3])}),
        "constant": Sample(values * 0, values * 0, {}),
        "NaN": Sample(values * np.nan, values, {}),
        "infinite": Sample(values * np.inf, values, {}),
    }[kind]


CLASSIFIER, REGRESSION = {"confusion_matrix", "per_class"}, {"predicted_vs_true", "residuals"}
EXPECTED = {
    "classifier": CLASSIFIER | {"worst"},
    "ignored targets": CLASSIFIER,
    "only ignored targets": set(),
    "one class": CLASSIFIER | {"worst"},
    "very many classes": set(),
    "many classes": CLASSIFIER,
    "coloured images": CLASSIFIER | {"best"},
    "NaN scores": CLASSIFIER | {"worst"},
    "regression": REGRESSION | {"worst"},
    "constant": REGRESSION,
    "NaN": REGRESSION,
    "infinite": REGRESSION,
}


@pytest.mark.parametrize("kind", EXPECTED)
def test_every_sample_gives_its_figures_as_images_and_files(kind: str, tmp_path: Path) -> None:
    writer = TensorboardWriter(tmp_path / "events")
    draw_validation(writer.writer, 7, sample(kind), tmp_path / "figures")
    writer.close()
    events = EventAccumulator(str(tmp_path / "events")).Reload()
    assert set(events.Tags()["images"]) == {f"validation/{name}" for name in EXPECTED[kind]}
    assert {path.name for path in tmp_path.glob("figures/*")} == {f"{name}.png" for name in EXPECTED[kind]}
    for path in tmp_path.glob("figures/*.png"):
        [event] = events.Images(f"validation/{path.stem}")
        assert (event.step, event.encoded_image_string) == (7, path.read_bytes())
        with Image.open(path) as image:
            assert image.size == (event.width, event.height)


def test_few_classes_get_precision_recall_curves(tmp_path: Path) -> None:
    writer = TensorboardWriter(tmp_path)
    draw_validation(writer.writer, 7, Sample(np.eye(3, dtype=np.float32), np.arange(3), {}), None)
    writer.close()
    tags = EventAccumulator(str(tmp_path)).Reload().Tags()["tensors"]
    assert tags == ["precision_recall/0", "precision_recall/1", "precision_recall/2"]


def test_probabilities_of_logits_and_of_their_log_softmax_are_the_same() -> None:
    logits = RNG.normal(size=(5, 3)) * 30
    probabilities = softmax(logits)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    np.testing.assert_allclose(softmax(np.log(probabilities)), probabilities, atol=1e-12)
