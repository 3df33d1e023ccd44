"""The project's losses equal the formulas that they are named after, in value and gradient."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from model.loss import cross_entropy, mse_loss, nll_loss
from preflight.shape_watch import ShapeWatch
from utils import ConfigError

LOGGER = logging.getLogger("test")
LOGITS = torch.randn(16, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = torch.arange(16) % 5
ONE_HOT = torch.eye(5, dtype=torch.float64)[LABELS]

CASES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "nll_loss": (
        lambda x: nll_loss(x.log_softmax(1), LABELS),
        lambda x: -(x.softmax(1).log() * ONE_HOT).sum(1).mean(),
    ),
    "cross_entropy": (
        lambda x: cross_entropy(x, LABELS),
        lambda x: nn.NLLLoss()(nn.LogSoftmax(dim=1)(x), LABELS),
    ),
    "cross_entropy, smoothed": (
        lambda x: cross_entropy(x, LABELS, label_smoothing=0.1),
        lambda x: -(x.log_softmax(1) * (0.9 * ONE_HOT + 0.1 / 5)).sum(1).mean(),
    ),
    "mse_loss": (lambda x: mse_loss(x, ONE_HOT), lambda x: ((x - ONE_HOT) ** 2).mean()),
}


@pytest.mark.parametrize("name", CASES)
def test_loss_and_its_gradient_equal_the_formulas(name: str) -> None:
    ours, formula = (function(LOGITS) for function in CASES[name])
    torch.testing.assert_close(ours, formula)
    gradients = []
    for function in CASES[name]:
        logits = LOGITS.clone().requires_grad_()
        function(logits).backward()
        gradients.append(logits.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    ("loss", "outputs", "targets"),
    [
        (mse_loss, torch.zeros(4, 1), torch.zeros(4)),
        (mse_loss, torch.zeros(4, 4), torch.zeros(4)),
        (cross_entropy, torch.zeros(4, 1), torch.zeros(4, 1)),
        (cross_entropy, torch.zeros(4, 1), torch.zeros(4).long()),
        (nll_loss, torch.zeros(4, 1), torch.zeros(4).long()),
    ],
)
def test_shapes_that_torch_takes_for_something_else_are_refused(loss: Any, outputs: Tensor, targets: Tensor) -> None:
    shapes = re.escape(f"outputs {list(outputs.shape)} and targets {list(targets.shape)}")
    with pytest.raises(ConfigError, match=f"^loss: {loss.__name__} gets {shapes}; .*wanted: "), ShapeWatch(LOGGER):
        loss(outputs, targets)
