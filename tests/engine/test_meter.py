"""What is measured of a step is what it is called."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from base import Microbatch, StepMeter, meter
from distributed.strategy import Alone
from utils import Position

CPU = torch.device("cpu")


def trainer_of(model: nn.Module, lr: float) -> Any:
    """Return what a meter asks of a trainer."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    strategy = Alone(None, CPU, 0)
    return SimpleNamespace(position=Position(), optimizer=optimizer, strategy=strategy, device=CPU)


def norm(tensors: Any) -> float:
    return float(torch.cat([tensor.detach().flatten() for tensor in tensors]).norm())


@pytest.mark.parametrize("max_weights", [1 << 22, 4])
def test_the_update_ratio_is_how_far_a_logged_step_moved_the_weights(
    max_weights: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of SGD the update is lr times the gradient."""
    monkeypatch.setattr(meter, "MAX_WEIGHTS", max_weights)
    model = nn.Linear(3, 4)
    model.bias.requires_grad_(False)
    trainer = trainer_of(model, lr=0.25)
    its_meter = StepMeter(trainer, log_every_steps=2)
    rows = 4 if max_weights > 12 else 1
    for _ in its_meter.timed([[Microbatch(None, 2)]] * 4):
        trainer.optimizer.zero_grad()
        model(torch.randn(2, 3)).square().sum().backward()
        before = model.weight.detach().clone()
        trainer.optimizer.step()
        trainer.position.after_step()
        trainer.optimizer.param_groups[0]["lr"] = 0.0 if trainer.position.global_step % 2 == 0 else 0.25
        values = its_meter.step_values()
        if trainer.position.global_step % 2:
            assert "update_ratio" not in values
        else:
            assert model.weight.grad is not None
            expected = 0.25 * norm([model.weight.grad[:rows]]) / norm([before[:rows]])
            assert values["update_ratio"] == pytest.approx(expected, rel=1e-5)
            assert values["lr/group0"] == 0.25  # that the step was made with


def test_speed_and_waiting_are_read_from_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(meter, "time", SimpleNamespace(perf_counter=lambda: clock.now))

    def batches() -> Iterator[list[Microbatch]]:
        for seconds in (3.0, 1.0):
            clock.now += seconds
            yield [Microbatch(None, 5), Microbatch(None, 3)]

    trainer = trainer_of(nn.Linear(1, 1), lr=0.1)
    its_meter = StepMeter(trainer, log_every_steps=1)
    of_steps = []
    for _ in its_meter.timed(batches()):
        clock.now += 1
        of_steps.append(its_meter.step_values())
    assert [(of["perf/data_wait"], of["perf/samples_per_sec"]) for of in of_steps] == [(0.75, 2.0), (0.5, 4.0)]
    of_epoch = its_meter.epoch_values()
    assert (of_epoch["perf/data_wait"], of_epoch["perf/samples_per_sec"]) == (4 / 6, 16 / 6)
    assert 0.01 < of_epoch["perf/host_memory_gib"] < 100


def test_an_epoch_without_a_step_has_no_speed() -> None:
    its_meter = StepMeter(trainer_of(nn.Linear(1, 1), lr=0.1), log_every_steps=1)
    assert list(its_meter.timed([])) == []
    assert its_meter.epoch_values() == {}
