"""The project's schedule equals the one composed of torch's own schedulers."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LinearLR, LRScheduler, SequentialLR

from model.lr_lambda import warmup_cosine

BASE_LR = 0.3


def rates(optimizer: SGD, scheduler: LRScheduler, num_steps: int) -> list[float]:
    """Return the learning rate of each of `num_steps` steps."""
    seen = []
    for _ in range(num_steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


def make_optimizer() -> SGD:
    """Return an optimizer of one parameter."""
    return SGD([nn.Parameter(torch.zeros(1))], lr=BASE_LR)


@pytest.mark.parametrize(("warmup", "total"), [(1, 2), (3, 10), (5, 100), (99, 100)])
@pytest.mark.parametrize("final", [0.0, 0.1])
def test_warmup_cosine_equals_torchs_linear_and_cosine_schedulers(warmup: int, total: int, final: float) -> None:
    optimizer = make_optimizer()
    linear = LinearLR(optimizer, start_factor=1 / (warmup + 1), end_factor=1.0, total_iters=warmup)
    cosine = CosineAnnealingLR(optimizer, T_max=total - warmup, eta_min=final * BASE_LR)
    expected = rates(optimizer, SequentialLR(optimizer, [linear, cosine], milestones=[warmup]), total + 1)
    optimizer = make_optimizer()
    schedule = partial(warmup_cosine, warmup=warmup, total=total, final=final)
    assert rates(optimizer, LambdaLR(optimizer, schedule), total + 1) == pytest.approx(expected, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("final", [0.0, 0.1])
def test_without_warmup_it_equals_torchs_cosine_scheduler(final: float) -> None:
    optimizer = make_optimizer()
    expected = rates(optimizer, CosineAnnealingLR(optimizer, T_max=20, eta_min=final * BASE_LR), 21)
    ours = [BASE_LR * warmup_cosine(step, warmup=0, total=20, final=final) for step in range(21)]
    assert ours == pytest.approx(expected, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("final", [0.0, 0.25, 1.0])
def test_beyond_the_end_it_stays_at_its_final_value(final: float) -> None:
    assert [warmup_cosine(step, 3, 10, final) for step in (10, 11, 1000)] == [final] * 3


def test_it_is_highest_once_warmed_up_and_falls_from_there() -> None:
    factors = [warmup_cosine(step, warmup=4, total=20) for step in range(21)]
    assert factors[4] == 1 == max(factors)
    assert factors[:5] == sorted(factors[:5])
    assert factors[4:] == sorted(factors[4:], reverse=True)
    assert factors[0] > 0
