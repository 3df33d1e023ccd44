"""The first step that went to NaN or infinity is found, whenever it is looked for; fp16 may skip a few."""

from __future__ import annotations

import math

import pytest
import torch

from base import FiniteWatch
from utils import Position

NAN, INF = math.nan, math.inf


def watch_of(values: list[tuple[float, float]], max_skipped_steps: int = 0) -> FiniteWatch:
    """Return a watch that has seen steps of these losses and gradient norms."""
    watch = FiniteWatch(max_skipped_steps)
    add(watch, values)
    return watch


def add(watch: FiniteWatch, values: list[tuple[float, float]], first_step: int = 0) -> None:
    """Add steps."""
    for step, (loss, norm) in enumerate(values, start=first_step):
        watch.add(Position(2, step, 10 + step), 0.1, torch.tensor(loss), torch.tensor(norm))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], None),
        ([(1.0, 2.0)], None),
        ([(1.0, 2.0), (NAN, 1.0), (INF, NAN)], (1, "the loss is nan")),
        ([(1.0, INF)], (0, "the gradient norm is inf")),
        ([(INF, NAN)], (0, "the loss is inf")),
        ([(1.0, 1.0), (1.0, NAN), (NAN, NAN)], (1, "the gradient norm is nan")),
    ],
)
def test_the_first_bad_step_is_reported_with_the_reason(
    values: list[tuple[float, float]], expected: tuple[int, str] | None
) -> None:
    bad = watch_of(values).first_bad()
    if expected is None:
        assert bad is None
        return
    assert bad is not None
    step, reason = bad
    assert (step.epoch, step.step_in_epoch, step.global_step, reason) == (2, expected[0], 10 + expected[0], expected[1])


def test_steps_are_looked_at_once() -> None:
    watch = watch_of([(1.0, 1.0), (NAN, 1.0)])
    assert watch.first_bad() is not None
    assert watch.first_bad() is None


@pytest.mark.parametrize("cut", range(6))
def test_skipped_steps_in_a_row_are_counted_across_looks_and_resumes(cut: int) -> None:
    values = [(1.0, INF), (1.0, NAN), (1.0, 1.0), (1.0, INF), (1.0, INF), (1.0, INF)]
    first, second = watch_of(values[:cut], 2), FiniteWatch(2)
    assert first.first_bad() is None
    second.load_state_dict(first.state_dict())
    add(second, values[cut:], cut)
    bad = second.first_bad()
    assert bad is not None
    assert (bad[0].step_in_epoch, bad[1]) == (5, "the gradient norm is inf")


def test_a_loss_that_is_not_finite_is_never_skipped() -> None:
    assert watch_of([(NAN, 1.0)], 10).first_bad() is not None


def test_half_precision_values_are_looked_at_too() -> None:
    watch = FiniteWatch(0)
    watch.add(Position(), 0.1, torch.tensor(1.0, dtype=torch.bfloat16), torch.tensor(INF, dtype=torch.float16))
    assert watch.first_bad() is not None
