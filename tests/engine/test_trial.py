"""What only the built objects show is told before a run leaves a trace, and trying it out changes nothing."""

from __future__ import annotations

import itertools
import json
import logging
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import toy
from base import BaseTrainer
from faults import assert_same_run
from helpers import newest
from preflight.shape_watch import CLASS_LOSSES, ELEMENTWISE_LOSSES, ShapeWatch
from toy_runs import run, small_config, train
from utils import CheckpointError, ConfigError, DataError, NonFiniteError, Stopped, UserError

pytestmark = pytest.mark.e2e  # whole runs

LOGGER = logging.getLogger("test")
ELSEWHERE = torch.ones((), requires_grad=True)


def left_in(directory: Path) -> list[str]:
    """Return the files below a directory, the given config aside."""
    return [str(path) for path in directory.rglob("*") if path.is_file() and path.name != "given.json"]


def replaced(base: type[BaseTrainer] = toy.ToyTrainer, **parts: Any) -> toy.TrainerClass:
    """Return what builds a trainer with some attributes, such as its loss, replaced before a run."""

    def build(*args: Any, **kwargs: Any) -> BaseTrainer:
        trainer = base(*args, **kwargs)
        for name, value in parts.items():
            setattr(trainer, name, value)
        return trainer

    return build


# Shapes that broadcast.


def named(losses: set[Any]) -> list[Any]:
    """Return the losses in the order of their names, by which the tests are called."""
    return [pytest.param(loss, id=loss.__name__) for loss in sorted(losses, key=lambda loss: loss.__name__)]


@pytest.mark.parametrize("loss", named(ELEMENTWISE_LOSSES))
@pytest.mark.parametrize(("outputs", "targets"), [((7, 1), (7,)), ((7,), (7, 1)), ((7, 7), (7,))])
def test_a_loss_of_unequal_shapes_is_refused(
    loss: Callable[..., Tensor], outputs: tuple[int, ...], targets: tuple[int, ...]
) -> None:
    with pytest.raises(ConfigError) as caught, ShapeWatch(LOGGER):
        loss(torch.rand(outputs), torch.rand(targets))
    shapes = f"outputs {list(outputs)} and targets {list(targets)}"
    assert str(caught.value) == f"loss: {loss.__name__} gets {shapes}; wanted: both of one shape"


@pytest.mark.parametrize("loss", named(CLASS_LOSSES))
@pytest.mark.parametrize("targets", [torch.zeros(7).long(), torch.ones(7, 1)], ids=["classes", "numbers"])
def test_a_loss_of_one_class_is_refused(loss: Callable[..., Tensor], targets: Tensor) -> None:
    with pytest.raises(ConfigError, match=r"gets outputs \[7, 1\].*of one class it is always 0"), ShapeWatch(LOGGER):
        loss(torch.rand(7, 1), targets)


PAIRED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "difference": lambda column, row: (column - row).square().mean(),
    "equality": lambda column, row: (column.round() == row).float().mean(),
    "method": lambda column, row: column.sub(row).abs().mean(),
    "mask": lambda column, row: torch.where(row > 0, column, 0.0).mean() + (column * row).mean(),
}
APART: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "one shape": lambda column, row: (column.squeeze(1) - row).square().mean(),
    "pairs on purpose": lambda column, row: (column.unsqueeze(0) - column.unsqueeze(1)).square().mean(),
    "labels of pairs": lambda column, row: (column == column.T).float().mean(),
    "lengths": lambda column, row: (torch.arange(4) < column).float().mean(),
    "weights": lambda column, row: (column.expand(7, 3) * column).mean(),
    "product": lambda column, row: torch.outer(row, row).mean() + (column.T @ row).mean(),
}


@pytest.mark.parametrize("name", [*PAIRED, *APART])
def test_pairs_that_come_of_broadcasting_are_warned_of_once_with_their_line(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    function = {**PAIRED, **APART}[name]
    with ShapeWatch(LOGGER):
        for _ in range(2):
            function(torch.rand(7, 1), torch.rand(7))
    line = function.__code__.co_firstlineno
    warning = f"tests/engine/test_trial.py:{line}: [7, 1] and [7] are broadcast to [7, 7]"
    texts = [record.getMessage().replace("[7] and [7, 1]", "[7, 1] and [7]") for record in caplog.records]
    assert [text.startswith(warning) for text in texts] == ([True] if name in PAIRED else [])


# What only built objects tell. Each is refused by a run and by --check, and leaves nothing.


def no_gradient(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs.detach(), targets)


class Tupled(toy.ToyNet):
    """A model that gives more while it is trained."""

    def forward(self, inputs: Tensor) -> Any:
        outputs = super().forward(inputs)
        return (outputs, outputs) if self.training else outputs


class Squeezing(toy.ToyNet):
    """A model that a batch of one sample breaks."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs).squeeze()


def made_of(model: type[nn.Module]) -> toy.TrainerClass:
    """Return what builds a trainer whose model is turned into another of the same weights."""

    def build(network: Any, *args: Any, **kwargs: Any) -> BaseTrainer:
        network.__class__ = model
        return toy.ToyTrainer(network, *args, **kwargs)

    return build


def per_sample(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs.argmax(dim=1) == targets).float()


def per_step(name: str, **args: Any) -> dict[str, Any]:
    """Return the change to a schedule per step."""
    return {"lr_scheduler": {"type": name, "interval": "step", "args": args}}


class Regression(toy.ToyTrainer):
    """One whose metrics get two numbers for each sample."""

    def _try_batch(self, size: int, loader: Any, is_training: bool) -> toy.Result:
        result = super()._try_batch(size, loader, is_training)
        return result._replace(outputs=result.outputs[:, 0], targets=result.outputs[:, 1])


class Case(NamedTuple):
    """A mistake, and what is said of it."""

    message: str
    changes: dict[str, Any]
    trainer: toy.TrainerClass | None = None
    error: type[UserError] = ConfigError


ONE_VALID = {"data_loader__args__validation_split": 1, "trainer__monitor": "max val_of"}
CONFUSION = {"type": "MulticlassConfusionMatrix", "args": {"num_classes": 3}, "name": "of"}
CYCLE = {"max_lr": 1.0, "total_steps": 11}
CASES = {
    "capturable": Case("Adam fails with them on cpu: If capturable", {"optimizer__args__capturable": True}),
    "differentiable": Case("Adam fails with them on cpu: a leaf", {"optimizer__args__differentiable": True}),
    "division at step 10": Case("LambdaLR fails at 10: .*division", per_step("LambdaLR", lr_lambda="1 / (10 - step)")),
    "negative factor": Case(r"the learning rate is \[-0.00.*\] at 6", per_step("LambdaLR", lr_lambda="1 - step / 5")),
    "negative rate": Case(r"the learning rate is \[-0.01\] at 1", per_step("ExponentialLR", gamma=-1.0)),
    "infinite rate": Case(r"the learning rate is \[inf\] at 6", per_step("ExponentialLR", gamma=1e60)),
    "too short a cycle": Case("total_steps: 11, but the run makes 12", per_step("OneCycleLR", **CYCLE)),
    "batch norm of one": Case("Expected more than 1 value.*batches of 7 and 1", {"data_loader__args__batch_size": 27}),
    "squeezed batch of one": Case("validation, with batches of 5 and 1 samples", {}, made_of(Squeezing)),
    "tuple in training": Case(r"training, with batches of 5 and 3 samples", {}, made_of(Tupled)),
    "another width": Case("shapes cannot be multiplied", {}, replaced(model=nn.Linear(3, 3))),
    "R2 of one": Case(
        "two samples.*validation", ONE_VALID | {"metrics": [{"type": "R2Score", "name": "of"}]}, Regression
    ),
    "Pearson of one": Case(
        "val_of is nan for one sample", ONE_VALID | {"metrics": [{"type": "PearsonCorrCoef", "name": "of"}]}, Regression
    ),
    "monitored matrix": Case(
        "no 'val_of' in this run; allowed: loss, str", {"metrics": [CONFUSION], "trainer__monitor": "max val_of"}
    ),
    "numbers for classes": Case("metrics: BinaryAUROC wants classes", {"metrics": ["BinaryAUROC"]}, Regression),
    "numbers for an error": Case("gets outputs .5, 3. and targets .5.;", {"loss": "MSELoss"}),
    "value per sample": Case("training, with batches of 5 and 3", {}, replaced(metric_ftns=[per_sample])),
    "no gradient": Case("loss: has no gradient", {}, replaced(criterion=no_gradient)),
    "accuracy as loss": Case("loss: has no gradient", {}, replaced(criterion=toy.accuracy)),
    "constant": Case("loss: has no gradient", {}, replaced(criterion=lambda *_: torch.ones(()))),
    "gradient of others": Case("loss: has no gradient", {}, replaced(criterion=lambda *_: ELSEWHERE.square())),
    "loss per sample": Case(r"loss: gives \[5\] for a", {}, replaced(criterion=nn.CrossEntropyLoss(reduction="none"))),
    "loss as a number": Case("'float' object has no attribute", {}, replaced(criterion=lambda *_: 1.0)),
    "nan": Case(
        "loss is nan before.*0, ", {}, replaced(criterion=lambda out, _: out.mean() * torch.nan), NonFiniteError
    ),
    "infinite": Case("loss is -?inf before", {}, replaced(criterion=lambda out, _: out.mean() / 0), NonFiniteError),
}


@pytest.mark.parametrize("name", CASES)
def test_what_built_objects_tell_is_told_before_anything_is_written(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    for args in ([], ["--check"]):
        with pytest.raises(case.error) as caught:
            train(small_config(tmp_path, **case.changes), *args, trainer=case.trainer)
        assert re.search(case.message, str(caught.value)), caught.value
        assert "\n" not in str(caught.value)
    assert left_in(tmp_path) == []


def test_a_check_of_a_plain_loop_sees_shapes_too(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"mse_loss gets outputs \[5, 3\] and targets \[5\]"):
        train(small_config(tmp_path, trainer__loop="plain", loss="MSELoss"), "--check")


# Labels out of range.


def with_label(label: int, find: Callable[[Any], int], base: toy.TrainerClass) -> tuple[toy.TrainerClass, list[int]]:
    """Return what builds a trainer where the sample that `find` takes from the loader has `label`; and that sample."""
    samples: list[int] = []

    def build(*args: Any, data_loader: Any, **kwargs: Any) -> BaseTrainer:
        samples.append(find(data_loader))
        data_loader.dataset.dataset.targets[samples[-1]] = label
        return base(*args, data_loader=data_loader, **kwargs)

    return build, samples


FIND: dict[str, Callable[[Any], int]] = {
    "first batch": lambda loader: int(loader.train_indices()[2]),
    "last sample": lambda loader: int(loader.train_indices()[-1]),
    "validation": lambda loader: int(loader.valid_indices()[5]),
}


@pytest.mark.parametrize("label", [3, 12, -1])
@pytest.mark.parametrize(("data", "place"), [("SampleLoader", "first batch"), *(("TensorLoader", at) for at in FIND)])
def test_a_label_in_the_first_batch_or_in_memory_is_told_before_anything_is_written(
    data: str, place: str, label: int, tmp_path: Path
) -> None:
    build, samples = with_label(label, FIND[place], toy.ToyTrainer)
    with pytest.raises(DataError) as caught:
        train(small_config(tmp_path, data_loader__type=data), trainer=build)
    text = f"sample {samples[0]} of the dataset: label {label}, but the loss gets scores of 3 classes: 0 to 2"
    assert str(caught.value) == text
    assert left_in(tmp_path) == []


def test_labels_that_the_loss_ignores_are_no_mistake(tmp_path: Path) -> None:
    build, _ = with_label(-100, FIND["first batch"], toy.ToyTrainer)
    train(small_config(tmp_path, data_loader__type="TensorLoader", metrics=[]), trainer=build)


LATE = {  # a sample of step 3, that is not among the first
    "counted": ({}, toy.ToyTrainer, 3),
    "plain": ({}, toy.PlainTrainer, 3),
    "accumulated": ({"trainer__grad_accum_steps": 2}, toy.ToyTrainer, 1),
    "steps of an endless stream": ({"trainer__len_epoch": 4}, toy.ToyTrainer, 3),
    "workers": ({"data_loader__args__num_workers": 2}, toy.PlainTrainer, 3),
}


@pytest.mark.parametrize("kind", LATE)
@pytest.mark.parametrize("split", ["training", "validation"])
def test_a_label_that_is_met_later_is_told_with_its_sample(kind: str, split: str, tmp_path: Path) -> None:
    changes, base, step = LATE[kind]

    def of_the_step(loader: Any) -> int:
        first = loader.train_indices()[:7].tolist()
        return next(i for i in loader.step_indices(1, 3, seed=0) if i not in first)

    build, samples = with_label(12, of_the_step if split == "training" else FIND["validation"], base)
    config = small_config(tmp_path, **changes)
    with pytest.raises(DataError) as caught:
        train(config, trainer=build)
    place = f"step {step}" if split == "training" else "step"
    assert str(caught.value).startswith(f"epoch 1, {place}")
    found = f"Target 12 is out of bounds.: sample {samples[0]} of the {split} data has label 12"
    assert found in str(caught.value)
    if split == "training":
        assert re.search(rf"; the step has samples [\d, ]*\b{samples[0]}\b[\d, ]* of the dataset$", str(caught.value))
    (status,) = tmp_path.rglob("status.json")
    content = json.loads(status.read_text())
    assert (content["status"], content["error"]) == ("failed", f"DataError: {caught.value}")


# A run that fails before its first step.


class Broken(Exception):
    """What is wrong in a trainer's own code."""


def failing(base: type[Any], step: int, error: Exception) -> type[Any]:
    """Return a trainer whose optimizer fails at a step, from 1."""

    class Failing(base):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.steps = itertools.count(1)
            self.optimizer.register_step_pre_hook(self.fail)

        def fail(self, *_: Any) -> None:
            if next(self.steps) == step:
                raise error

        def _preflight(self) -> None:
            """Not: it would fail too."""

    return Failing


def checkpoints(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.rglob("*.pth"))


@pytest.mark.parametrize("base", [toy.ToyTrainer, toy.PlainTrainer])
@pytest.mark.parametrize(
    "error", [Broken("mine"), ConfigError("theirs"), torch.OutOfMemoryError("all gone"), MemoryError("gone")]
)
def test_a_run_that_fails_in_its_first_step_says_so_and_is_not_gone_on_with(
    base: type[Any], error: Exception, tmp_path: Path
) -> None:
    config = small_config(tmp_path)
    with pytest.raises(Exception, match=str(error)):
        train(config, trainer=failing(base, 1, error))
    (status,) = tmp_path.rglob("status.json")
    content = json.loads(status.read_text())
    assert content["status"] == "failed"
    assert str(error) in content["error"]
    assert checkpoints(tmp_path) == []
    with pytest.raises(CheckpointError, match="there is no checkpoint in it"):
        run("-r", str(status.parent))
    other = train(config, "--resume-latest", trainer=base)
    assert other != status.parent
    assert newest(other)["position"]["global_step"] == 12


@pytest.mark.parametrize("base", [toy.ToyTrainer, toy.PlainTrainer])
def test_one_that_fails_later_is_gone_on_with(base: type[Any], tmp_path: Path) -> None:
    config = small_config(tmp_path)
    with pytest.raises(Broken):
        train(config, trainer=failing(base, 2, Broken()))
    assert checkpoints(tmp_path) == ["latest.pth"]
    with pytest.raises(Broken):
        train(config, "--resume-latest", trainer=failing(base, 1, Broken()))
    assert checkpoints(tmp_path) == ["latest.pth"]
    assert newest(train(config, "--resume-latest", trainer=base))["position"]["global_step"] == 12


def test_one_that_a_signal_stops_before_its_first_step_is_gone_on_with(tmp_path: Path) -> None:
    class Signalled(toy.ToyTrainer):
        def _log_samples(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    config = small_config(tmp_path)
    with pytest.raises(Stopped):
        train(config, trainer=Signalled)
    assert checkpoints(tmp_path) == ["latest.pth"]
    assert newest(train(config, "--resume-latest"))["position"]["global_step"] == 12
    assert len(list(tmp_path.rglob("status.json"))) == 1


# The trial changes nothing.


class Drawing(toy.ToyNet):
    """A model that draws in eval mode too, and puts other tensors in place of its buffers."""

    def forward(self, inputs: Tensor) -> Tensor:
        self.mean = 0.9 * self.mean + 0.1 * inputs.mean(dim=0)
        return super().forward(inputs) + torch.randn(1)


class Scaled(nn.Module):
    """A loss with a state of its own."""

    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(()))

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        loss = F.cross_entropy(outputs, targets)
        with torch.no_grad():
            self.scale.lerp_(loss, 0.5)
        return loss / self.scale


UNCHANGED: dict[str, tuple[dict[str, Any], toy.TrainerClass]] = {
    "samples": ({}, replaced()),
    "batches": ({"data_loader__type": "TensorLoader"}, replaced()),
    "accumulated": ({"trainer__grad_accum_steps": 3}, replaced()),
    "per step": (per_step("OneCycleLR", max_lr=0.1, total_steps=12), replaced()),
    "torchmetrics": ({"metrics": [CONFUSION, "accuracy"]}, replaced()),
    "drawing": ({}, made_of(Drawing)),
    "loss with a state": ({}, lambda *args, **kwargs: replaced(criterion=Scaled())(*args, **kwargs)),
}


@pytest.mark.parametrize("kind", UNCHANGED)
def test_a_run_is_the_same_to_the_bit_without_the_trial(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    changes, build = UNCHANGED[kind]
    with_trial = train(small_config(tmp_path / "with", **changes), trainer=build)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toy.ToyTrainer, "_preflight", lambda self: None)
        without = train(small_config(tmp_path / "without", **changes), trainer=build)
    assert_same_run(without, with_trial)


CLASSES = torch.tensor([0, 1, 0, 2])


@pytest.mark.parametrize(
    ("labels", "how", "is_empty"),
    [
        (CLASSES, {}, False),
        (CLASSES.clamp(max=1), {"ignore_index": 1}, False),
        (torch.full((4,), -100), {}, True),
        (torch.ones(4).long(), {"ignore_index": 1}, True),
        (torch.ones(4).long(), {"weight": torch.tensor([1.0, 0.0, 1.0])}, True),
        (CLASSES, {"weight": torch.tensor([0.0, 0.0, 1.0])}, False),
        (CLASSES[:0], {}, True),
    ],
)
def test_a_mean_over_nothing_may_be_nan(labels: Tensor, how: dict[str, Any], is_empty: bool) -> None:
    with ShapeWatch(LOGGER, torch.arange(4)) as watch:
        loss = F.cross_entropy(torch.rand(len(labels), 3), labels, **how)
    assert (watch.is_empty, bool(loss.isnan())) == (is_empty, is_empty)


@pytest.mark.parametrize("loss", [F.cross_entropy, nn.CrossEntropyLoss()], ids=["function", "module"])
def test_flat_scores_are_not_taken_for_those_of_one_sample(loss: Callable[..., Tensor]) -> None:
    assert loss(torch.rand(7), torch.rand(7)).isfinite()  # torch takes the seven samples for seven classes
    with ShapeWatch(LOGGER), pytest.raises(ConfigError, match="it would take samples for classes"):
        loss(torch.rand(7), torch.rand(7))
