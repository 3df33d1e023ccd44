"""The loss of many batches, each weighted by what its loss divides by, is that of one batch of all their samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial, update_wrapper
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from base import loss_denominator, weighted
from utils import MetricTracker

NUM_SAMPLES, NUM_CLASSES, LENGTH = 131, 5, 3
BATCH_SIZES = [1, 7, 64, NUM_SAMPLES]
IGNORED = -100
GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(NUM_SAMPLES, NUM_CLASSES, LENGTH, generator=GENERATOR)
LABELS = torch.randint(NUM_CLASSES, (NUM_SAMPLES, LENGTH), generator=GENERATOR)
LABELS[40:60] = IGNORED  # whole batches of 1 and 7 are ignored
LABELS[torch.rand(LABELS.shape, generator=GENERATOR) < 0.3] = IGNORED
KNOWN = torch.where(LABELS == IGNORED, 1, LABELS)
SOFT = torch.randn(NUM_SAMPLES, NUM_CLASSES, LENGTH, generator=GENERATOR).softmax(1)
WEIGHT = torch.tensor([0.1, 3.0, 1.0, 0.02, 7.0])
SIGNS = torch.where(KNOWN == 1, 1.0, -1.0)

Array = np.ndarray[Any, Any]
Case = tuple[Callable[..., Tensor], Tensor, Tensor, float]


def log_softmax(logits: Tensor) -> Array:
    """Return the log-probabilities over axis 1 in float64."""
    values = logits.double().numpy()
    values = values - values.max(1, keepdims=True)
    return np.asarray(values - np.log(np.exp(values).sum(1, keepdims=True)))


def by_hand(
    logits: Tensor, labels: Tensor, weight: Tensor | None = None, ignored: int = IGNORED, smoothing: float = 0.0
) -> float:
    """Return the cross entropy as torch's docs define it, in float64: class by class, target by target."""
    logs = np.moveaxis(log_softmax(logits), 1, -1).reshape(-1, NUM_CLASSES)
    weights = np.ones(NUM_CLASSES) if weight is None else weight.double().numpy()
    total = terms = 0.0
    for log, label in zip(logs, labels.flatten().tolist()):
        if label == ignored:
            continue
        total += weights[label]
        terms -= (1 - smoothing) * weights[label] * log[label] + smoothing / NUM_CLASSES * (weights * log).sum()
    return float(terms / total)


def smoothed(outputs: Tensor, targets: Tensor, weight: Tensor, label_smoothing: float, ignore_index: int) -> Tensor:
    """A function with the arguments of torch's."""
    return F.cross_entropy(outputs, targets, weight, ignore_index=ignore_index, label_smoothing=label_smoothing)


def ignoring(outputs: Tensor, targets: Tensor, ignore_index: int = IGNORED) -> Tensor:
    """A function that ignores something by default."""
    return F.nll_loss(outputs.log_softmax(1), targets, ignore_index=ignore_index)


def weighing(outputs: Tensor, targets: Tensor, weight: Tensor | None = None) -> Tensor:
    """A function that has weights alone; what torch ignores by default, it ignores too."""
    return F.cross_entropy(outputs, targets, weight)


def bound(function: Callable[..., Tensor], **kwargs: Any) -> Callable[..., Tensor]:
    """Return the function with arguments, as a config binds them."""
    return update_wrapper(partial(function, **kwargs), function)


def class_cases() -> dict[str, Case]:
    """Return losses of classes."""
    first, known = LABELS[:, 0], KNOWN[:, 0]
    logs = LOGITS.log_softmax(1)
    soft = -(SOFT.double().numpy() * log_softmax(LOGITS))
    ce, nll = nn.CrossEntropyLoss, nn.NLLLoss
    one, many = LOGITS[:, :, 0], LOGITS
    both = by_hand(many, KNOWN, WEIGHT, ignored=2)
    soft_mean = soft.sum(1).mean()
    soft_weighted = (soft * WEIGHT.double().numpy()[None, :, None]).sum(1).mean()
    return {
        "ce": (ce(), one, known, by_hand(one, known)),
        "ce, ignoring by default": (ce(), one, first, by_hand(one, first)),
        "ce, weights": (ce(WEIGHT), one, known, by_hand(one, known, WEIGHT)),
        "ce, weights, ignoring": (ce(WEIGHT), one, first, by_hand(one, first, WEIGHT)),
        "ce, weights, ignoring a class": (ce(WEIGHT, ignore_index=2), many, KNOWN, both),
        "ce, smoothed": (ce(label_smoothing=0.2), one, first, by_hand(one, first, smoothing=0.2)),
        "ce, smoothed, weights": (
            ce(WEIGHT, label_smoothing=0.2), many, LABELS, by_hand(many, LABELS, WEIGHT, smoothing=0.2)
        ),
        "ce of probabilities": (ce(), many, SOFT, soft_mean),
        "ce of probabilities, weights": (ce(WEIGHT), many, SOFT, soft_weighted),
        "ce of tokens": (ce(), many, LABELS, by_hand(many, LABELS)),
        "nll": (nll(), logs[:, :, 0], known, by_hand(one, known)),
        "nll, weights, ignoring": (nll(WEIGHT), logs[:, :, 0], first, by_hand(one, first, WEIGHT)),
        "nll of pixels": (nll(WEIGHT), logs[:, :, None], LABELS[:, None], by_hand(many, LABELS, WEIGHT)),
        "a function": (ignoring, many, LABELS, by_hand(many, LABELS)),
        "a function, ignoring a class": (bound(ignoring, ignore_index=2), many, KNOWN, by_hand(many, KNOWN, ignored=2)),
        "a function with weights alone": (bound(weighing, weight=WEIGHT), one, first, by_hand(one, first, WEIGHT)),
        "a function, smoothed": (
            bound(smoothed, weight=WEIGHT, label_smoothing=0.3, ignore_index=1),
            many, KNOWN, by_hand(many, KNOWN, WEIGHT, 1, 0.3),
        ),
    }  # fmt: skip


def value_cases() -> dict[str, Case]:
    """Return losses of values and of several labels at once, which divide by the number of targets."""
    cases: dict[str, Case] = {}
    noise = torch.randn(NUM_SAMPLES, LENGTH, generator=GENERATOR)
    for offset in (0, 2_000, 1_000_000):
        targets = torch.randn(NUM_SAMPLES, LENGTH, generator=GENERATOR) + offset
        outputs = targets + noise
        error = np.abs(outputs.double().numpy() - targets.double().numpy())
        huber = np.where(error < 1, error**2 / 2, error - 0.5).mean()
        cases |= {
            f"l1 at {offset}": (nn.L1Loss(), outputs, targets, error.mean()),
            f"mse at {offset}": (nn.MSELoss(), outputs, targets, (error**2).mean()),
            f"smooth l1 at {offset}": (nn.SmoothL1Loss(), outputs, targets, huber),
            f"huber at {offset}": (nn.HuberLoss(), outputs, targets, huber),
        }
    logits, probabilities = LOGITS[:, 0].double().numpy(), SOFT[:, 0].double().numpy()
    softplus = np.log1p(np.exp(-np.abs(logits))) + np.maximum(logits, 0)
    signs, weights = SIGNS.double().numpy(), np.array([0.5, 2.0, 9.0])
    bce = softplus - logits * probabilities
    margins = np.log1p(np.exp(-signs * logits))
    hinge = np.where(signs == 1, logits, np.maximum(0, 1 - logits)).mean()
    kl = (SOFT.double() * (SOFT.double().log() - LOGITS.double().log_softmax(1))).mean().item()
    first = LOGITS[:, :, 0].double().numpy()
    right = np.take_along_axis(first, KNOWN[:, :1].numpy(), 1)
    margin = (np.maximum(0, 1 - right + first).sum(1) - 1).mean() / NUM_CLASSES
    element = torch.tensor(weights).float()
    return cases | {
        "bce": (nn.BCEWithLogitsLoss(), LOGITS[:, 0], SOFT[:, 0], bce.mean()),
        "bce, element weights": (nn.BCEWithLogitsLoss(element), LOGITS[:, 0], SOFT[:, 0], (bce * weights).mean()),
        "bce of probabilities": (nn.BCELoss(), LOGITS[:, 0].sigmoid(), SOFT[:, 0], bce.mean()),
        "poisson": (nn.PoissonNLLLoss(), LOGITS[:, 0], SOFT[:, 0], (np.exp(logits) - probabilities * logits).mean()),
        "soft margin": (nn.SoftMarginLoss(), LOGITS[:, 0], SIGNS, margins.mean()),
        "labels": (nn.MultiLabelSoftMarginLoss(), LOGITS[:, 0], (SIGNS + 1) / 2, margins.mean()),
        "hinge": (nn.HingeEmbeddingLoss(), LOGITS[:, 0], SIGNS, hinge),
        "kl": (nn.KLDivLoss(), LOGITS.log_softmax(1), SOFT, kl),
        "margin": (nn.MultiMarginLoss(), LOGITS[:, :, 0], KNOWN[:, 0], margin),
    }  # fmt: skip


CASES = class_cases() | value_cases()


@pytest.mark.filterwarnings("ignore:reduction.*mean.*batchmean")
@pytest.mark.parametrize("batch_size", BATCH_SIZES)
@pytest.mark.parametrize("name", CASES)
def test_the_mean_over_batches_is_the_loss_by_hand(name: str, batch_size: int) -> None:
    criterion, outputs, targets, expected = CASES[name]
    tracker = MetricTracker("loss")
    for output, target in zip(outputs.split(batch_size), targets.split(batch_size)):
        tracker.update("loss", criterion(output, target), n=loss_denominator(criterion, target, len(target)))
    assert tracker.avg("loss") == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
@pytest.mark.parametrize("name", class_cases())
def test_the_gradients_of_microbatches_add_up_to_that_of_one_batch(name: str, batch_size: int) -> None:
    criterion, outputs, targets, _ = CASES[name]
    whole, parts = (outputs.detach().clone().requires_grad_() for _ in range(2))
    loss = criterion(whole, targets)
    loss.backward()
    split = targets.split(batch_size)
    weights = [loss_denominator(criterion, target, len(target)) for target in split]
    total, sum_of_losses = sum(weights), torch.zeros(())
    for output, target, weight in zip(parts.split(batch_size), split, weights, strict=True):
        part = weighted(criterion(output, target), weight, total)
        part.backward()
        sum_of_losses += part.detach()
    torch.testing.assert_close(sum_of_losses, loss.detach())
    torch.testing.assert_close(parts.grad, whole.grad)


@pytest.mark.parametrize("lengths", [[2, 5, 9], [9, 1]])
@pytest.mark.parametrize("name", ["ce", "mse"])
def test_sequences_count_by_their_length(lengths: list[int], name: str) -> None:
    criterion: nn.Module = nn.CrossEntropyLoss(WEIGHT) if name == "ce" else nn.MSELoss()
    tracker, outputs, targets = MetricTracker("loss"), [], []
    for length in lengths:  # padded to the longest of the batch
        output = torch.randn(4, NUM_CLASSES, length)
        target = torch.randint(NUM_CLASSES, (4, length)) if name == "ce" else torch.randn(4, NUM_CLASSES, length)
        tracker.update("loss", criterion(output, target), n=loss_denominator(criterion, target, 4))
        outputs.append(output)
        targets.append(target)
    expected = criterion(torch.cat(outputs, -1), torch.cat(targets, -1)).item()
    assert tracker.avg("loss") == pytest.approx(expected, rel=1e-6)


def plain(outputs: Tensor, targets: Tensor) -> Tensor:
    """A function of which nothing is known."""
    return F.mse_loss(outputs, targets)


def scale_only(outputs: Tensor, targets: Tensor, weight: float = 3.0) -> Tensor:
    """A function whose weight is something else."""
    return weight * F.cross_entropy(outputs, targets)


class Focal(nn.CrossEntropyLoss):
    """A loss with a forward of its own, of which torch's attributes say nothing."""

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (1 - outputs.softmax(1)[range(len(targets)), targets]).square().mean()


@pytest.mark.parametrize("criterion", [plain, scale_only, Focal(WEIGHT), len])
def test_any_other_loss_is_a_mean_over_samples(criterion: Any) -> None:
    assert loss_denominator(criterion, torch.zeros(4, 2, dtype=torch.int64), 4) == 4
    assert loss_denominator(nn.MSELoss(), {"y": torch.zeros(4, 2)}, 4) == 4


@pytest.mark.parametrize("criterion", [nn.CrossEntropyLoss(), nn.CrossEntropyLoss(WEIGHT, label_smoothing=0.1)])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_a_step_of_ignored_targets_alone_changes_nothing(criterion: nn.Module, as_tensor: bool) -> None:
    outputs = torch.randn(4, NUM_CLASSES, requires_grad=True)
    targets = torch.full((4,), IGNORED)
    weight = loss_denominator(criterion, targets, 4)
    weight = torch.tensor(weight) if as_tensor else weight
    loss = weighted(criterion(outputs, targets), weight, sum([weight, weight]))
    loss.backward()
    assert loss.item() == 0
    assert outputs.grad is not None
    assert not outputs.grad.any()
    tracker = MetricTracker("loss")
    tracker.update("loss", criterion(outputs, targets), n=weight)
    assert math.isnan(tracker.avg("loss"))  # of nothing there is no mean
    tracker.update("loss", torch.tensor(3.0), n=2)
    assert tracker.avg("loss") == 3


@pytest.mark.parametrize("name", class_cases())
def test_weights_that_are_tensors_give_what_numbers_give(name: str) -> None:
    criterion, outputs, targets, expected = CASES[name]
    tracker, step_loss = MetricTracker("loss"), torch.zeros(())
    weights = [torch.tensor(loss_denominator(criterion, target, 7)) for target in targets.split(7)]
    for output, target, weight in zip(outputs.split(7), targets.split(7), weights, strict=True):
        loss = criterion(output, target)
        tracker.update("loss", loss, n=weight)
        step_loss += weighted(loss, weight, sum(weights))
    assert tracker.avg("loss") == pytest.approx(expected, rel=1e-6)
    assert step_loss.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_on_an_accelerator_nothing_waits_for_a_value(weight: Tensor | None) -> None:
    """Tensors of the meta device have none, so that asking for one fails."""
    device = torch.device("meta")
    criterion = nn.CrossEntropyLoss(weight).to(device)
    outputs = torch.randn(4, NUM_CLASSES, device=device, requires_grad=True)
    targets = torch.zeros(4, dtype=torch.int64, device=device)
    weights = [loss_denominator(criterion, targets, 4) for _ in range(2)]
    assert all(isinstance(weight, Tensor) and weight.ndim == 0 for weight in weights)
    loss = weighted(criterion(outputs, targets), weights[0], sum(weights))
    assert loss.dtype == torch.float32
    loss.backward()
    tracker = MetricTracker("loss", device=device)
    tracker.update("loss", loss, n=sum(weights))


def test_a_loss_that_costs_nothing_to_count_is_counted_by_numbers() -> None:
    targets = torch.zeros(4, 2, device="meta")
    assert loss_denominator(nn.MSELoss(), targets, 4) == 8
    assert loss_denominator(plain, targets, 4) == 4
    assert loss_denominator(nn.CrossEntropyLoss(), torch.zeros(4, dtype=torch.int64), 4) == 4
