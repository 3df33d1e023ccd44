"""The monitor knows the best epoch, when to stop, and goes on after a resume as if it had not been interrupted."""

from __future__ import annotations

import math
from typing import Any

import pytest

from base.monitor import Monitor

NAN = math.nan


def follow(monitor: Monitor, values: list[float], first_epoch: int = 1) -> list[bool]:
    """Feed `values` epoch by epoch; return which were the best so far."""
    return [monitor.update(epoch, {"val_loss": value}) for epoch, value in enumerate(values, start=first_epoch)]


@pytest.mark.parametrize(
    ("spec", "values", "is_best", "best", "best_epoch"),
    [
        ("min val_loss", [3.0, 2.0, 2.0, 2.5, 1.0], [True, True, False, False, True], 1.0, 5),
        ("max val_loss", [0.5, 0.4, 0.5, 0.6], [True, False, False, True], 0.6, 4),
        ("max val_loss", [-3.0, -2.0], [True, True], -2.0, 2),
        ("min val_loss", [NAN, 4.0, NAN, 5.0], [False, True, False, False], 4.0, 2),
        ("max val_loss", [NAN, NAN], [False, False], -math.inf, 0),
        ("min val_loss", [math.inf, 1.0], [False, True], 1.0, 2),
    ],
)
def test_best_is_what_is_strictly_better_than_all_before(
    spec: str, values: list[float], is_best: list[bool], best: float, best_epoch: int
) -> None:
    monitor = Monitor(spec, None)
    assert monitor.is_on
    assert follow(monitor, values) == is_best
    assert (monitor.best, monitor.best_epoch) == (best, best_epoch)


def test_off_follows_nothing_and_never_stops() -> None:
    monitor = Monitor("off", 1)
    assert not monitor.is_on
    assert follow(monitor, [3.0, 2.0, 4.0]) == [False, False, False]
    assert not monitor.should_stop


@pytest.mark.parametrize(
    ("values", "stops"),
    [
        ([1.0, 1.0, 1.0], [False, False, True]),  # equal is not better
        ([3.0, 4.0, 2.0, 3.0, 3.0], [False, False, False, False, True]),  # a better one starts the count again
        ([3.0, NAN, NAN], [False, False, True]),
        ([NAN, NAN], [False, True]),
    ],
)
def test_stops_after_two_epochs_in_a_row_without_a_better_one(values: list[float], stops: list[bool]) -> None:
    monitor = Monitor("min val_loss", 2)
    for value, should_stop in zip(values, stops, strict=True):
        follow(monitor, [value])
        assert monitor.should_stop is should_stop


def test_never_stops_without_early_stop() -> None:
    monitor = Monitor("min val_loss", None)
    follow(monitor, [1.0] * 1000)
    assert not monitor.should_stop


@pytest.mark.parametrize("stop_after", range(7))
def test_interrupted_anywhere_it_goes_on_like_the_uninterrupted_one(stop_after: int) -> None:
    values = [5.0, 6.0, 4.0, NAN, 4.0, 4.5]
    whole = Monitor("min val_loss", 3)
    expected = follow(whole, values)
    first, second = Monitor("min val_loss", 3), Monitor("min val_loss", 3)
    seen = follow(first, values[:stop_after])
    second.load_state_dict(first.state_dict())
    assert seen + follow(second, values[stop_after:], stop_after + 1) == expected
    assert second.state_dict() == whole.state_dict()
    assert second.should_stop
    assert whole.should_stop


def test_state_is_plain_numbers() -> None:
    monitor = Monitor("max val_loss", 3)
    follow(monitor, [1.0, 0.5])
    expected: dict[str, Any] = {"best": 1.0, "best_epoch": 1, "num_bad_epochs": 1, "top": []}
    assert monitor.state_dict() == expected


def test_a_followed_metric_that_the_log_lacks_is_an_error() -> None:
    with pytest.raises(KeyError, match="val_accuracy"):
        Monitor("max val_accuracy", None).update(1, {"val_loss": 1.0})
