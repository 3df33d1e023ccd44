"""The project's metrics equal those of torchmetrics."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torchmetrics.classification import MulticlassAccuracy

from model.metric import accuracy, top_k_acc
from utils import ConfigError


@pytest.mark.parametrize("num_classes", [4, 10])
@pytest.mark.parametrize("num_samples", [1, 64])
@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_accuracies_equal_those_of_torchmetrics(num_classes: int, num_samples: int, k: int) -> None:
    generator = torch.Generator().manual_seed(num_classes + num_samples)
    scores = torch.randn(num_samples, num_classes, generator=generator)
    labels = torch.randint(num_classes, (num_samples,), generator=generator)
    expected = MulticlassAccuracy(num_classes, top_k=k, average="micro")(scores, labels)
    assert torch.equal(top_k_acc(scores, labels, k=k), expected)
    if k == 1:
        assert torch.equal(accuracy(scores, labels), expected)
    if k == num_classes:
        assert expected == 1


@pytest.mark.parametrize("metric", [accuracy, top_k_acc])
@pytest.mark.parametrize(
    ("outputs", "targets"),
    [
        (torch.zeros(4, 1), torch.zeros(4, 1)),
        (torch.zeros(4, 1), torch.zeros(4)),
        (torch.zeros(4, 1), torch.zeros(4).long()),
        (torch.zeros(4), torch.zeros(4).long()),
        (torch.zeros(4, 5), torch.zeros(4, 1).long()),
        (torch.zeros(4, 5), torch.zeros(4, 5)),
    ],
)
def test_shapes_that_would_broadcast_are_refused(metric: Any, outputs: torch.Tensor, targets: torch.Tensor) -> None:
    with pytest.raises(ConfigError) as caught:
        metric(outputs, targets)
    shapes = f"outputs {list(outputs.shape)} and targets {list(targets.shape)}"
    assert str(caught.value).startswith(f"metrics: {metric.__name__} gets {shapes}; wanted: scores (N, C)")


def test_top_k_counts_three_by_default() -> None:
    scores = torch.tensor([[4.0, 3.0, 2.0, 1.0]]).repeat(4, 1)
    assert top_k_acc(scores, torch.arange(4)) == 0.75
    assert accuracy(scores, torch.arange(4)) == 0.25
