"""Training, validation and test give the same whatever the batch size, for weighted, masked and plain losses."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from base import BaseDataLoader, TensorBatches
from checkpoint.file import load_checkpoint
from data_loader.mnist import MnistDataLoader
from example_runs import evaluate, run_train, train
from helpers import assert_equal, epochs_of, newest, write_given
from model.loss import cross_entropy, nll_loss
from model.model import MnistModel
from parse_config import ConfigParser
from trainer import Trainer

NUM_TRAIN, NUM_VALID, LENGTH, NUM_CLASSES = 60, 20, 3, 4
IGNORED = -100
GENERATOR = torch.Generator().manual_seed(0)
INPUTS = torch.randn(NUM_TRAIN + NUM_VALID, 5, generator=GENERATOR)
LABELS = torch.randint(NUM_CLASSES, (NUM_TRAIN + NUM_VALID, LENGTH), generator=GENERATOR)
SOME = torch.where(torch.rand(LABELS.shape, generator=GENERATOR) < 0.4, IGNORED, LABELS)
SOME[10:23] = IGNORED  # whole microbatches, and in small batches whole steps
WEIGHT = torch.tensor([0.1, 1.0, 5.0, 0.5])
VALUES = INPUTS[:, :1] * 2 + torch.randn(NUM_TRAIN + NUM_VALID, 1, generator=GENERATOR)


class Tokens(nn.Module):
    """Logits (N, C, L) of three tokens, from five numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, NUM_CLASSES * LENGTH))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layers(inputs).unflatten(1, (NUM_CLASSES, LENGTH))


class Values(nn.Module):
    """One value, from five numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, inputs: Tensor) -> Tensor:
        out: Tensor = self.layers(inputs)
        return out


LOSSES: dict[str, tuple[Any, Tensor]] = {
    "weights": (nn.CrossEntropyLoss(WEIGHT), LABELS),
    "ignored": (nn.CrossEntropyLoss(), SOME),
    "both, smoothed": (nn.CrossEntropyLoss(WEIGHT, label_smoothing=0.1), SOME),
    "a class ignored": (nn.CrossEntropyLoss(WEIGHT, ignore_index=1), LABELS),
    "of model/loss.py": (cross_entropy, SOME),
    "log-likelihood of model/loss.py": (lambda outputs, targets: nll_loss(outputs.log_softmax(1), targets), LABELS),
    "values": (nn.SmoothL1Loss(), VALUES),
}


def run(config: dict[str, Any], loss: str, batch_size: int, **options: Any) -> Path:
    """Train on `LOSSES[loss]` in batches of a size; return the run directory."""
    config = deepcopy(config)
    config["trainer"] |= {"epochs": 2, "monitor": "off", **options}
    parsed = ConfigParser(config)
    criterion, targets = LOSSES[loss]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Values() if targets is VALUES else Tokens()
    loader = BaseDataLoader(
        TensorBatches(INPUTS, targets), batch_size, True, 0, 0, valid_indices=torch.arange(NUM_TRAIN, len(INPUTS))
    )
    Trainer(
        model,
        criterion,
        [],
        torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.5),
        config=parsed,
        device=torch.device("cpu"),
        data_loader=loader,
        valid_data_loader=loader.split_validation(),
    ).train()
    return parsed.save_dir


@pytest.mark.parametrize("batch_size", [1, 7, 30])
@pytest.mark.parametrize("loss", LOSSES)
def test_microbatches_train_to_the_weights_of_the_whole_batch(
    config: dict[str, Any], loss: str, batch_size: int
) -> None:
    """Steps of 60 samples, one an epoch, but of 42 and 18 with batches of 7; the second has momentum."""
    num_epochs = 2
    accumulated = {1: 60, 7: 6, 30: 2}[batch_size]
    whole = run(config, loss, batch_size * accumulated, epochs=num_epochs, tensorboard=False)
    parts = run(config, loss, batch_size, grad_accum_steps=accumulated, epochs=num_epochs, tensorboard=False)
    assert newest(whole)["position"] == newest(parts)["position"]
    for name, weight in newest(whole)["model"].items():
        torch.testing.assert_close(newest(parts)["model"][name], weight, rtol=1e-6, atol=1e-6)
    for one, other in zip(epochs_of(whole), epochs_of(parts), strict=True):
        assert other.pop("kind") == one.pop("kind") == "epoch"
        assert other == pytest.approx(one, rel=1e-5)


def test_steps_of_ignored_targets_alone_leave_everything_finite(config: dict[str, Any]) -> None:
    run_dir = run(config, "both, smoothed", 1)
    assert all(value == value for epoch in epochs_of(run_dir) for value in epoch.values())
    assert all(weight.isfinite().all() for weight in newest(run_dir)["model"].values())


def test_an_epoch_of_ignored_targets_alone_is_told_and_never_the_best(
    config: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(LOSSES, "nothing", (nn.CrossEntropyLoss(), torch.full_like(LABELS, IGNORED)))
    run_dir = run(config, "nothing", 7, monitor="min val_loss")
    assert "epoch 1: val_loss is nan; that is never the best" in caplog.messages
    assert not (run_dir / "model_best.pth").exists()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        assert_equal(dict(newest(run_dir)["model"]), dict(Tokens().state_dict()))  # nothing was learnt


def by_hand(config: dict[str, Any], checkpoint: dict[str, Any], criterion: nn.Module) -> float:
    """Return the loss over the test split at once."""
    model = MnistModel(dropout=0.0).eval()
    model.load_state_dict(checkpoint["model"])
    images, labels = MnistDataLoader(**config["data_loader"]["args"], training=False).peek(10_000).batch
    with torch.no_grad():
        return float(criterion(model(images).double(), labels))


@pytest.mark.parametrize(
    "args",
    [
        {"weight": [0.1, 1.0, 5.0, 0.5, 2.0, 1.0, 1.0, 0.01, 3.0, 1.0]},
        {"ignore_index": 3},
        {"weight": [0.1, 1.0, 5.0, 0.5, 2.0, 1.0, 1.0, 0.01, 3.0, 1.0], "ignore_index": 3, "label_smoothing": 0.1},
    ],
)
def test_the_loss_of_test_does_not_depend_on_the_batch_size(config: dict[str, Any], args: dict[str, Any]) -> None:
    config["loss"] = {"type": "CrossEntropyLoss", "args": args}
    config["trainer"] |= {"epochs": 1}
    run_dir = train(config)
    weight = torch.tensor(args["weight"]).double() if "weight" in args else None
    criterion = nn.CrossEntropyLoss(**(args | {"weight": weight}))
    expected = by_hand(config, load_checkpoint(run_dir / "model_best.pth"), criterion)
    for size in (1, 7, 64, 1000):
        assert evaluate("-r", str(run_dir), "--bs", str(size))["loss"] == pytest.approx(expected, rel=1e-6)


def test_a_rehearsal_says_that_a_loss_depends_on_the_batch_size(
    config: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("trainer.evaluation.batch_weight", lambda criterion, batch, num_samples: 1)
    run_train("-c", write_given(config), "--check")
    assert "loss: no mean over samples, so it depends on batch_size" in capsys.readouterr().out
    monkeypatch.undo()
    run_train("-c", write_given(config), "--check")
    assert "no mean over samples" not in capsys.readouterr().out
