"""Values that depend on the batch size are warned of before training, and no others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.regression import R2Score

from base import BaseDataLoader, Microbatch, TensorBatches, loss_denominator
from preflight import warn_of_wrong_means
from utils import MetricTracker

NUM_CLASSES = 3
GENERATOR = torch.Generator().manual_seed(0)
INPUTS = torch.randn(20, 4, generator=GENERATOR)
LABELS = torch.arange(20) % NUM_CLASSES
SOME_LABELS = torch.where(torch.arange(20) < 3, -100, LABELS)
WEIGHT = torch.tensor([0.1, 1.0, 5.0])


def sum_of_squares(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().sum()


def root_of_mean(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.mse_loss(outputs, targets).sqrt()


def contrastive(outputs: Tensor, targets: Tensor) -> Tensor:
    """Of each sample against the others of its batch."""
    return F.cross_entropy(outputs @ outputs.T, torch.arange(len(outputs)))


def ignoring(outputs: Tensor, targets: Tensor) -> Tensor:
    """A loss that does not say what it ignores."""
    return F.cross_entropy(outputs, targets)


def weighing(outputs: Tensor, targets: Tensor, scale: float = 1.0) -> Tensor:
    """A loss that does not say its weights."""
    return scale * F.cross_entropy(outputs, targets, weight=WEIGHT)


def random(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs + torch.randn_like(outputs)).square().mean()


def wants_eight(outputs: Tensor, targets: Tensor) -> Tensor:
    if len(outputs) < 8:
        raise ValueError("a batch of 8, please")
    return outputs.sum()


def nothing(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs[:0].mean()


def share_of_variance(outputs: Tensor, targets: Tensor) -> Tensor:
    return 1 - F.mse_loss(outputs, targets) / targets.var(correction=0)


def mean_error(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.l1_loss(outputs, targets)


def r2() -> Any:
    metric: Any = R2Score()
    metric.__name__ = "r2"
    return metric


def evaluate(
    model: nn.Module, criterion: Any, microbatches: Iterable[Microbatch], metrics: MetricTracker, device: torch.device
) -> dict[str, float]:
    """Measure as trainer/evaluation.py does."""
    for (inputs, targets), num_samples in microbatches:
        outputs = model(inputs)
        metrics.update("loss", criterion(outputs, targets), n=loss_denominator(criterion, targets, num_samples))
        metrics.update_metrics(outputs, targets, n=num_samples)
    return metrics.result()


@pytest.fixture
def warned(caplog: pytest.LogCaptureFixture) -> Callable[..., list[str]]:
    """Return a function that gives the names of the values that were warned of, each in one line."""

    def names(criterion: Any, targets: Tensor, metrics: Any = (), num_samples: int = 20) -> list[str]:
        caplog.clear()
        torch.manual_seed(0)
        model = nn.Linear(4, 1 if targets.ndim == 2 else NUM_CLASSES)
        loader: Any = BaseDataLoader(TensorBatches(INPUTS[:num_samples], targets[:num_samples]), 5, True, 0, 0)
        trainer = SimpleNamespace(
            model=model,
            criterion=criterion,
            data_loader=loader,
            metric_ftns=metrics,
            device=torch.device("cpu"),
            logger=logging.getLogger("trainer"),
        )
        with torch.no_grad():
            warn_of_wrong_means(trainer, evaluate)
        assert not any("\n" in message for message in caplog.messages)
        return [message.partition(":")[0] for message in caplog.messages]

    return names


VALUES = torch.arange(20.0)[:, None]


@pytest.mark.parametrize(
    ("criterion", "targets"),
    [
        (nn.CrossEntropyLoss(), LABELS),
        (nn.CrossEntropyLoss(WEIGHT, label_smoothing=0.1), SOME_LABELS),
        (nn.CrossEntropyLoss(ignore_index=0), LABELS),
        (nn.MSELoss(), VALUES),
        (mean_error, VALUES),
        (ignoring, LABELS),
        (random, VALUES),  # of which nothing can be said
        (wants_eight, VALUES),
        (nothing, VALUES),
    ],
)
def test_a_mean_is_none_of_them(criterion: Any, targets: Tensor, warned: Callable[..., list[str]]) -> None:
    assert warned(criterion, targets) == []


@pytest.mark.parametrize(
    ("criterion", "targets"),
    [
        (sum_of_squares, VALUES),
        (root_of_mean, VALUES),
        (contrastive, VALUES),
        (ignoring, SOME_LABELS),
        (weighing, LABELS),
    ],
)
def test_a_loss_that_is_no_mean_is_warned_of(
    criterion: Any, targets: Tensor, warned: Callable[..., list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    assert warned(criterion, targets) == ["loss"]
    assert "batch_weight" in caplog.text


def test_a_metric_that_is_no_mean_is_warned_of(warned: Callable[..., list[str]]) -> None:
    assert warned(nn.MSELoss(), VALUES, [mean_error, share_of_variance, r2()]) == ["share_of_variance"]


@pytest.mark.parametrize("num_samples", [1, 3, 5])
def test_few_samples_are_no_mistake(num_samples: int, warned: Callable[..., list[str]]) -> None:
    assert warned(nn.MSELoss(), VALUES, num_samples=num_samples) == []
