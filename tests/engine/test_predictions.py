"""What is drawn of a validation is a bounded sample of it, with the inputs of highest and lowest loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from base import predictions
from base.predictions import Predictions


def collected(inputs: Any, outputs: torch.Tensor, targets: torch.Tensor, size: int = 7) -> Any:
    """Return the sample of batches of `size`."""
    collector = Predictions()
    for batch in zip(inputs.split(size), outputs.split(size), targets.split(size)):
        collector.add(*batch)
    return collector.sample()


@pytest.mark.parametrize("max_waiting", [1, 3, 1000])
@pytest.mark.parametrize("is_classifier", [True, False])
def test_the_worst_and_the_best_are_those_of_highest_and_lowest_loss(
    max_waiting: int, is_classifier: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictions, "MAX_WAITING", max_waiting)
    torch.manual_seed(0)
    outputs, numbers = torch.randn(101, 5), torch.arange(101.0)
    targets = torch.randint(0, 5, (101,)) if is_classifier else torch.randn(101, 5)
    sample = collected(numbers.reshape(-1, 1, 1, 1).expand(-1, 3, 2, 2), outputs, targets)
    losses = (
        F.cross_entropy(outputs, targets, reduction="none") if is_classifier else (outputs - targets).square().mean(1)
    )
    for name, order in (("worst", losses.argsort(descending=True)), ("best", losses.argsort())):
        images, its_outputs, its_targets = sample.images[name]
        assert images[:, 0, 0, 0].tolist() == order[:16].tolist()
        assert np.array_equal(its_outputs, outputs[order[:16]].numpy())
        assert np.array_equal(its_targets, targets[order[:16]].numpy())
    assert np.array_equal(sample.outputs, outputs.numpy())
    assert np.array_equal(sample.targets, targets.numpy())


def test_a_large_validation_is_sampled_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictions, "MAX_SAMPLES", 100)
    numbers = torch.arange(1000.0)
    sample = collected(numbers, numbers, numbers, 10)
    batches = sorted({int(value) // 10 for value in sample.outputs[:, 0]})
    assert 50 < len(sample.outputs) <= 100
    assert batches == list(range(0, 100, 16))


def test_outputs_that_a_compiled_model_writes_over_are_kept_as_they_were() -> None:
    outputs, targets, collector = torch.randn(4, 3), torch.tensor([0, 1, 2, 0]), Predictions()
    expected = outputs.clone()
    collector.add(None, outputs, targets)
    outputs.zero_()
    sample = collector.sample()
    assert sample is not None
    assert np.array_equal(sample.outputs, expected.numpy())


@pytest.mark.parametrize(
    ("outputs", "targets"),
    [
        (torch.rand(2, 3), torch.rand(2)),
        (torch.rand(2, 3, 4, 4), torch.zeros(2, 4, 4, dtype=torch.long)),
        (torch.rand(2, 1, 4, 4), torch.rand(2, 1, 4, 4)),
        (torch.rand(2), torch.zeros(2, dtype=torch.long)),
        (torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, dtype=torch.long)),
        ((torch.rand(2, 3),), torch.zeros(2, dtype=torch.long)),
        ({"logits": torch.rand(2, 3)}, {"labels": torch.zeros(2)}),
        (torch.rand(0, 3), torch.zeros(0, dtype=torch.long)),
        (torch.rand(2, 3), None),
        (None, ["a", "b"]),
    ],
)
def test_what_is_neither_classes_nor_values_gives_no_figures(outputs: Any, targets: Any) -> None:
    collector = Predictions()
    collector.add(torch.rand(2, 1, 4, 4), outputs, targets)
    assert collector.sample() is None


def test_images_are_found_in_a_batch_of_any_nesting() -> None:
    image, collector = torch.rand(2, 3, 4, 4), Predictions()
    collector.add({"ids": torch.arange(2), "views": [(image, "text")]}, torch.rand(2, 3), torch.tensor([0, 1]))
    sample = collector.sample()
    assert sample is not None
    assert sorted(sample.images["worst"][0][:, 0, 0, 0]) == sorted(image[:, 0, 0, 0].tolist())
