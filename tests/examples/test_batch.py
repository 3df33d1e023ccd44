"""A batch is what trainer/batch.py says: dicts, outputs in a tuple, a masked loss, all weighted by what they count."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from base import BaseDataLoader, counted
from helpers import epochs_of, newest
from parse_config import ConfigParser
from trainer import BatchResult, Trainer, evaluate
from utils import MetricTracker

NUM_TRAIN, NUM_VALID, LENGTH = 30, 11, 6
LR = 0.05


class Sequences(Dataset[dict[str, Any]]):
    """Sequences of two features with a target at each place, some of which are masked out, the more the later."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        size = (NUM_TRAIN + NUM_VALID, LENGTH)
        self.inputs = torch.randn(*size, 2, generator=generator)
        self.targets = self.inputs.sum(dim=2).square() + torch.randn(size, generator=generator)
        self.is_counted = torch.rand(size, generator=generator) < torch.linspace(1, 0.2, len(self.inputs))[:, None]
        self.is_counted[:, 0] = True  # a mean over nothing is none

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {
            "inputs": self.inputs[index],
            "target": {"values": self.targets[index], "is_counted": self.is_counted[index]},
            "name": f"sequence {index}",
        }


class Recurrent(nn.Module):
    """Gives its outputs (N, L) and its last state."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.RNN(2, 4, batch_first=True)
        self.head = nn.Linear(4, 1)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        hidden, state = self.rnn(inputs)
        return self.head(hidden).squeeze(2), state


def masked_mse(outputs: Tensor, targets: Tensor, is_counted: Tensor) -> Tensor:
    """Return the mean squared error over what is counted."""
    return (outputs - targets).square()[is_counted].mean()


def run_dict_batch(model: nn.Module, criterion: Any, batch: dict[str, Any]) -> BatchResult:
    """Take a batch of `Sequences` apart, in the place of trainer.batch.run_batch."""
    outputs = model(batch["inputs"])
    target = batch["target"]
    return BatchResult(criterion(outputs[0], target["values"], target["is_counted"]), outputs, target)


def num_counted(criterion: Any, batch: dict[str, Any], num_samples: int) -> int:
    """Return over how many items the loss of a batch is a mean, in the place of trainer.batch.batch_weight."""
    assert len(batch["name"]) == num_samples
    return int(batch["target"]["is_counted"].sum())


def mean_state(outputs: tuple[Tensor, Tensor], targets: dict[str, Tensor]) -> Tensor:
    """Return a metric that is a mean over samples, not items."""
    return outputs[1].abs().mean()


@pytest.fixture(autouse=True)
def _dict_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("trainer.trainer", "trainer.evaluation"):
        monkeypatch.setattr(f"{module}.run_batch", run_dict_batch)
        monkeypatch.setattr(f"{module}.batch_weight", num_counted)


def make_model() -> Recurrent:
    """Return the model, always of the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Recurrent()


def make_loader(batch_size: int) -> BaseDataLoader:
    """Return a loader whose last sequences are for validation."""
    valid = torch.arange(NUM_TRAIN, NUM_TRAIN + NUM_VALID)
    return BaseDataLoader(Sequences(), batch_size, True, 0, 0, valid_indices=valid)


def train_with(config: dict[str, Any], batch_size: int, **options: Any) -> Path:
    """Train the model on the sequences; return the run directory."""
    config = deepcopy(config)
    config["trainer"] |= {"epochs": 1, **options}
    parsed = ConfigParser(config)
    loader, model = make_loader(batch_size), make_model()
    trainer = Trainer(
        model,
        masked_mse,
        [mean_state],
        torch.optim.SGD(model.parameters(), lr=LR),
        config=parsed,
        device=torch.device("cpu"),
        data_loader=loader,
        valid_data_loader=loader.split_validation(),
    )
    trainer.train()
    return parsed.save_dir


def by_hand(model: Recurrent, samples: slice) -> tuple[Tensor, Tensor]:
    """Return the loss over all items of the samples, and the metric over the samples."""
    data = Sequences()
    outputs, state = model(data.inputs[samples])
    return masked_mse(outputs, data.targets[samples], data.is_counted[samples]), state.abs().mean()


TRAIN, VALID = slice(0, NUM_TRAIN), slice(NUM_TRAIN, None)


def trained_by_hand() -> tuple[Recurrent, Tensor, Tensor]:
    """Return the model after one step of all training samples, and the loss and metric that the step saw."""
    model = make_model()
    loss, metric = by_hand(model, TRAIN)
    loss.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.sub_(LR * parameter.grad)
    return model, loss, metric


@pytest.mark.parametrize(("batch_size", "grad_accum_steps"), [(30, 1), (10, 3), (7, 5), (1, 30)])
def test_a_step_of_any_microbatches_is_that_of_one_large_batch_by_hand(
    config: dict[str, Any], batch_size: int, grad_accum_steps: int
) -> None:
    run_dir = train_with(config, batch_size, grad_accum_steps=grad_accum_steps)
    expected, loss, metric = trained_by_hand()
    assert newest(run_dir)["position"]["global_step"] == 1
    for name, weight in expected.state_dict().items():
        torch.testing.assert_close(newest(run_dir)["model"][name], weight)
    [epoch] = epochs_of(run_dir)
    assert epoch["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert epoch["mean_state"] == pytest.approx(metric.item(), rel=1e-5)
    with torch.no_grad():
        valid_loss, valid_metric = by_hand(expected, VALID)
    assert epoch["val_loss"] == pytest.approx(valid_loss.item(), rel=1e-5)
    assert epoch["val_mean_state"] == pytest.approx(valid_metric.item(), rel=1e-5)


def test_several_steps_are_those_of_larger_batches(config: dict[str, Any]) -> None:
    large = train_with(config, 12, epochs=2)
    small = train_with(config, 4, epochs=2, grad_accum_steps=3)
    assert newest(large)["position"] == newest(small)["position"]
    for name, weight in newest(large)["model"].items():
        torch.testing.assert_close(newest(small)["model"][name], weight, rtol=1e-4, atol=1e-5)
    for one, other in zip(epochs_of(large), epochs_of(small), strict=True):
        assert other.pop("kind") == one.pop("kind") == "epoch"
        assert other == pytest.approx(one, rel=1e-4)


@pytest.mark.parametrize("batch_size", [1, 2, 4, 11])
def test_what_is_measured_does_not_depend_on_the_batch_size(batch_size: int) -> None:
    model = make_model()
    loader = make_loader(batch_size).split_validation()
    assert loader is not None
    metrics = MetricTracker("loss", metric_ftns=[mean_state])
    measured = evaluate(model, masked_mse, counted(loader), metrics, torch.device("cpu"))
    with torch.no_grad():
        loss, metric = by_hand(model, VALID)
    assert measured == pytest.approx({"loss": loss.item(), "mean_state": metric.item()}, rel=1e-5)
