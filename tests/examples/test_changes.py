"""The changes that people make to a fork each touch one file of theirs, and no file of the engine.

Every test takes a fresh project with a loader, a model and a config of its own, makes one change as a person would,
trains through the project's own train.py, and holds what came out against a number that is computed here.
"""

from __future__ import annotations

import compileall
import csv
import inspect
import io
import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent, indent
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fork_server import ForkServer, Script
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from base import BaseModel, split_indices
from checkpoint.file import load_checkpoint
from faults import assert_same_run, with_changes
from helpers import ROOT, epochs_of, newest
from new_project import create

ENGINE = ("base", "parse_config", "preflight", "checkpoint", "speed", "logger", "utils", "tests/engine")
Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]
MADE_BY_RUNS = {"saved", "part", "__pycache__", "output.log"}
LR = 0.1


# The project before any change.


def make_points(num_points: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return points (N, 4) float32 and the class of each, (N,) int64 in 0 to 2."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(num_points, 4, generator=generator)
    return points, (points[:, 0] > 0).long() + (points[:, 1] > 0).long()


class PointNet(BaseModel):
    """Two linear layers."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.body = nn.Linear(4, width)
        self.head = nn.Linear(width, 3)

    def forward(self, points: Tensor) -> Tensor:
        """(N, 4) float -> logits (N, 3)."""
        logits: Tensor = self.head(torch.tanh(self.body(points)))
        return logits


LOADER = f'''"""Points in four dimensions, of three classes."""

import torch
from torch import Tensor

from base import BaseDataLoader, TensorBatches


{inspect.getsource(make_points)}

class PointsLoader(BaseDataLoader):
    """32 points, a quarter of them held out; 9 others for the test."""

    def __init__(self, batch_size: int, training: bool = True):
        points, classes = make_points(32, seed=0) if training else make_points(9, seed=1)
        split = 0.25 if training else 0
        super().__init__(TensorBatches(points, classes), batch_size, training, split, num_workers=0)
'''
MODEL = f'''"""A model of points."""

import torch
from torch import Tensor, nn

from base import BaseModel


{inspect.getsource(PointNet)}'''
CONFIG = {
    "name": "points",
    "n_gpu": 0,
    "arch": {"type": "PointNet"},
    "data_loader": {"type": "PointsLoader", "args": {"batch_size": 8}},
    "optimizer": {"type": "SGD", "args": {"lr": LR}},
    "loss": "cross_entropy",
    "metrics": ["accuracy"],
    "trainer": {"epochs": 2, "tensorboard": False},
}
TRAIN, VALID = split_indices(32, 0.25, "split")


class Project:
    """A project that is changed, and run in processes of its own."""

    def __init__(self, path: Path, server: ForkServer, engine: dict[str, bytes]) -> None:
        self.path, self._server, self._engine = path, server, engine
        self._before = contents(path)

    def given(self, file: str, text: str) -> None:
        """Let the project have had `file` before the change that is tested."""
        self.write(file, text)
        self._before[file] = (self.path / file).read_bytes()

    def write(self, file: str, text: str) -> None:
        """Write a file."""
        (self.path / file).write_text(dedent(text).lstrip())

    def append(self, file: str, text: str) -> None:
        """Add lines at the end of a file."""
        (self.path / file).write_text(self.read(file) + text)

    def replace(self, file: str, old: str, new: str) -> None:
        """Change one place in a file."""
        assert self.read(file).count(old) == 1, f"{file} has not one {old!r}"
        (self.path / file).write_text(self.read(file).replace(old, new))

    def add_method(self, file: str, text: str) -> None:
        """Add a method to the class at the end of a file."""
        self.append(file, "\n" + indent(dedent(text).strip(), "    ") + "\n")

    def read(self, file: str) -> str:
        """Return what is in a file."""
        return (self.path / file).read_text()

    def configure(self, **changes: Any) -> None:
        """Change keys of config.json, as in trainer__epochs=3."""
        config = with_changes(json.loads(self.read("config.json")), **changes)
        (self.path / "config.json").write_text(json.dumps(config))

    def run(self, *args: str) -> Script:
        """Run a script of the project to its end."""
        script = self._server.start(self.path, *args)
        script.wait()
        return script

    def train(self, *args: str) -> Path:
        """Train config.json; return the run directory."""
        script = self.run("train.py", "-c", "config.json", *args)
        assert script.code == 0, script.output
        return newest_dir(self.path / "saved" / "points")

    def resume(self, run_dir: Path) -> Path:
        """Go on with a copy of a run after its first epoch; return the copy."""
        copy = shutil.copytree(run_dir, self.path / "part" / "points" / run_dir.name)
        script = self.run("train.py", "-r", str(copy / "checkpoint-epoch1.pth"))
        assert script.code == 0, script.output
        return copy

    def assert_changed(self, *files: str) -> None:
        """Assert that these files of the project were changed and no others, config.json aside; none of the engine."""
        now = contents(self.path)
        changed = {file for file in now.keys() | self._before.keys() if now.get(file) != self._before.get(file)}
        assert changed - {"config.json"} == set(files)
        assert {file: content for file, content in now.items() if is_engine(file)} == self._engine


def contents(project: Path) -> dict[str, bytes]:
    """Return the content of every file of a project that no run has made, by its path."""
    paths = [path for path in project.rglob("*") if path.is_file()]
    relative = {path.relative_to(project): path for path in paths}
    return {file.as_posix(): path.read_bytes() for file, path in relative.items() if not MADE_BY_RUNS & {*file.parts}}


def is_engine(file: str) -> bool:
    """Whether a file is one that an upgrade replaces."""
    return file.startswith(tuple(f"{folder}/" for folder in ENGINE))


def newest_dir(parent: Path) -> Path:
    """Return the directory in `parent` that was made last."""
    return max(parent.iterdir(), key=lambda path: path.stat().st_ctime_ns)


@pytest.fixture(scope="session")
def server() -> Iterator[ForkServer]:
    """Return a server that scripts of the projects are started by."""
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def unchanged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """Return a project as it is before any change, and the engine's files of this template."""
    path = create(tmp_path_factory.mktemp("changes") / "fork", is_empty=True)
    folders = {folder: contents(ROOT / folder) for folder in ENGINE}
    engine = {f"{folder}/{file}": content for folder, files in folders.items() for file, content in files.items()}
    (path / "data_loader" / "points.py").write_text(LOADER)
    (path / "model" / "points.py").write_text(MODEL)
    (path / "config.json").write_text(json.dumps(CONFIG))
    compileall.compile_dir(path, quiet=1)  # once, rather than in every copy
    return path, engine


@pytest.fixture
def project(tmp_path: Path, unchanged: tuple[Path, dict[str, bytes]], server: ForkServer) -> Project:
    """Return a project of the test's own."""
    path, engine = unchanged
    return Project(shutil.copytree(path, tmp_path / "fork"), server, engine)


# What is computed here, to compare with.


def new_model() -> PointNet:
    """Return the model as a run begins with it."""
    torch.manual_seed(0)
    return PointNet()


def trained_model(checkpoint: Path) -> PointNet:
    """Return the model of a checkpoint, or of a run's newest."""
    model = PointNet()
    content = newest(checkpoint) if checkpoint.is_dir() else load_checkpoint(checkpoint)
    model.load_state_dict(content["model"])
    return model


def held_out() -> tuple[Tensor, Tensor]:
    """Return the points that are held out for validation, and their classes."""
    points, classes = make_points(32, seed=0)
    return points[VALID], classes[VALID]


def train_by_hand(loss: Loss, model: nn.Module, optimizer: torch.optim.Optimizer, num_steps: int = 2) -> None:
    """Make steps of the whole training split, with plain torch."""
    points, classes = make_points(32, seed=0)
    for _ in range(num_steps):
        optimizer.zero_grad()
        loss(model, points[TRAIN], classes[TRAIN]).backward()
        optimizer.step()


def plain_loss(model: nn.Module, points: Tensor, classes: Tensor) -> Tensor:
    """Return the cross entropy of a model's outputs."""
    return F.cross_entropy(model(points), classes)


def assert_weights(run_dir: Path, expected: nn.Module) -> None:
    """Assert that a run ended with the weights of `expected`."""
    torch.testing.assert_close(newest(run_dir)["model"], dict(expected.state_dict()))


# The changes.


def test_a_model_in_a_second_file_from_a_factory(project: Project) -> None:
    project.write(
        "model/wide.py",
        """
        from torch import nn

        from model.points import PointNet


        def wide_net(factor: int) -> nn.Module:
            return PointNet(width=8 * factor)
        """,
    )
    project.configure(arch={"type": "wide_net", "args": {"factor": 3}})
    assert newest(project.train())["model"]["body.weight"].shape == (24, 4)
    project.assert_changed("model/wide.py")


def test_a_loss_that_the_data_weights(project: Project) -> None:
    project.given(
        "data_loader/points.py",
        LOADER
        + """
    def facts(self):
        classes = torch.cat([classes for _, classes in self.train_samples()])
        return {"class_counts": torch.bincount(classes, minlength=3)}
""",
    )
    project.append(
        "model/loss.py",
        """

def balanced(outputs: Tensor, targets: Tensor, class_counts: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets, weight=1 / class_counts)
""",
    )
    project.configure(loss="balanced")
    run_dir = project.train()
    model = trained_model(run_dir)
    counts = torch.bincount(make_points(32, seed=0)[1][TRAIN], minlength=3)

    def balanced(points: Tensor, classes: Tensor) -> float:
        return F.cross_entropy(model(points), classes, weight=1 / counts).item()

    assert epochs_of(run_dir)[-1]["val_loss"] == pytest.approx(balanced(*held_out()), rel=1e-5)
    script = project.run("test.py", "-r", str(run_dir / "checkpoint-epoch2.pth"))
    points, classes = make_points(9, seed=1)
    batches = [(points[:8], classes[:8]), (points[8:], classes[8:])]
    expected = sum(balanced(*batch) * len(batch[0]) for batch in batches) / 9
    assert f"loss: {expected:.4f}" in script.output, script.output
    project.assert_changed("model/loss.py")


def test_class_weights_that_the_data_gives_to_a_loss_of_torch(project: Project) -> None:
    project.add_method(
        "data_loader/points.py",
        """
        def facts(self):
            classes = torch.cat([classes for _, classes in self.train_samples()])
            return {"weight": 1 / torch.bincount(classes, minlength=3)}
        """,
    )
    project.configure(loss={"type": "CrossEntropyLoss"})
    run_dir = project.train()
    points, classes = held_out()
    weight = 1 / torch.bincount(make_points(32, seed=0)[1][TRAIN], minlength=3)
    expected = F.cross_entropy(trained_model(run_dir)(points), classes, weight=weight).item()
    assert epochs_of(run_dir)[-1]["val_loss"] == pytest.approx(expected, rel=1e-5)
    project.assert_changed("data_loader/points.py")


def test_a_metric_that_is_a_vector_and_one_that_is_a_matrix(project: Project) -> None:
    project.append(
        "model/metric.py",
        '''

def hits(outputs: Tensor, targets: Tensor) -> Tensor:
    """Share of the samples that are of each class and found to be, (3,)."""
    return confusion(outputs, targets).diagonal()


def confusion(outputs: Tensor, targets: Tensor) -> Tensor:
    """Share of the samples that are of each class (rows) and taken for each class (columns), (3, 3)."""
    pairs = targets * 3 + outputs.argmax(dim=1)
    return pairs.bincount(minlength=9).reshape(3, 3) / len(targets)
''',
    )
    project.configure(metrics=["hits", "confusion"], trainer__tensorboard=True)
    run_dir = project.train()
    points, classes = held_out()
    found = trained_model(run_dir)(points).argmax(dim=1)
    expected = torch.zeros(3, 3)
    for row, column in zip(classes, found):
        expected[row, column] += 1 / len(VALID)
    log = epochs_of(run_dir)[-1]
    assert [log[f"val_hits/{index}"] for index in range(3)] == pytest.approx(expected.diagonal().tolist())
    events = EventAccumulator(str(run_dir), size_guidance={"images": 0}).Reload()
    image = events.Images("confusion/valid")[-1].encoded_image_string
    pixels = torch.from_numpy(np.array(Image.open(io.BytesIO(image)).convert("L")))
    cells = pixels.float().unfold(0, 16, 16).unfold(1, 16, 16).mean(dim=(2, 3)) / 255
    torch.testing.assert_close(cells, expected / expected.sum(dim=1, keepdim=True), atol=1 / 255, rtol=0)
    assert_same_run(run_dir, project.resume(run_dir))
    project.assert_changed("model/metric.py")


def test_a_schedule(project: Project) -> None:
    project.append(
        "model/lr_lambda.py",
        """

def staircase(position: int, every: PositiveInt, factor: Probability) -> float:
    return factor ** (position // every)
""",
    )
    schedule = {"type": "staircase", "args": {"every": 2, "factor": 0.5}}
    project.configure(lr_scheduler={"type": "LambdaLR", "args": {"lr_lambda": schedule}}, trainer__epochs=5)
    rates = [epoch["lr/group0"] for epoch in epochs_of(project.train())]
    assert rates == pytest.approx([LR, LR, LR / 2, LR / 2, LR / 4])
    project.assert_changed("model/lr_lambda.py")


def test_parameter_groups(project: Project) -> None:
    project.add_method(
        "model/points.py",
        """
        def param_groups(self):
            return [
                {"params": self.body.parameters()},
                {"params": self.head.parameters(), "lr": 0.02, "weight_decay": 0.5},
            ]
        """,
    )
    schedule = {"type": "LambdaLR", "args": {"lr_lambda": "0.5 ** epoch"}}
    project.configure(data_loader__args__batch_size=24, lr_scheduler=schedule)
    run_dir = project.train()
    rates = [(epoch["lr/group0"], epoch["lr/group1"]) for epoch in epochs_of(run_dir)]
    assert rates == [pytest.approx((LR, 0.02)), pytest.approx((LR / 2, 0.01))]
    model = new_model()
    groups = [{"params": model.body.parameters()}, {"params": model.head.parameters(), "lr": 0.02, "weight_decay": 0.5}]
    optimizer = torch.optim.SGD(groups, lr=LR)
    train_by_hand(plain_loss, model, optimizer, num_steps=1)
    for group in optimizer.param_groups:
        group["lr"] /= 2
    train_by_hand(plain_loss, model, optimizer, num_steps=1)
    assert_weights(run_dir, model)
    project.assert_changed("model/points.py")


def test_a_sampler(project: Project) -> None:
    project.append(
        "model/metric.py",
        """

def mean_class(outputs: Tensor, targets: Tensor) -> Tensor:
    return targets.float().mean()
""",
    )
    project.given("model/metric.py", project.read("model/metric.py"))
    project.replace("data_loader/points.py", "num_workers=0)", "num_workers=0, sampler=sampler)")
    project.replace(
        "data_loader/points.py",
        "        super().__init__(",
        """        def sampler(indices):  # class 2 three times as often as class 1, class 0 never
            weights = torch.tensor([0.0, 0.25, 0.75])[classes[indices]]
            return torch.utils.data.WeightedRandomSampler(weights, 4000)

        super().__init__(""",
    )
    project.configure(metrics=["mean_class"], data_loader__args__batch_size=1000)
    run_dir = project.train()
    counts = torch.bincount(make_points(32, seed=0)[1][TRAIN], minlength=3) * torch.tensor([0, 1, 3])
    expected = (counts * torch.arange(3)).sum() / counts.sum()
    logs = epochs_of(run_dir)
    assert [log["mean_class"] for log in logs] == pytest.approx([expected.item()] * 2, abs=0.03)
    assert logs[0]["mean_class"] != logs[1]["mean_class"]
    assert [log["global_step"] for log in logs] == [4, 8]
    assert logs[0]["val_mean_class"] == pytest.approx(held_out()[1].float().mean().item())
    assert_same_run(run_dir, project.resume(run_dir))
    project.assert_changed("data_loader/points.py")


def test_a_validation_set(project: Project) -> None:
    project.replace(
        "data_loader/points.py", "split = 0.25 if training else 0", "valid = TensorBatches(*make_points(11, seed=2))"
    )
    project.replace("data_loader/points.py", "split, num_workers=0", "0, 0, validation_set=valid if training else None")
    run_dir = project.train()
    log = epochs_of(run_dir)[-1]
    points, classes = make_points(11, seed=2)
    model = trained_model(run_dir)
    assert log["val_loss"] == pytest.approx(plain_loss(model, points, classes).item(), rel=1e-5)
    assert log["val_accuracy"] == pytest.approx((model(points).argmax(1) == classes).float().mean().item())
    assert log["global_step"] == 2 * 32 / 8
    project.assert_changed("data_loader/points.py")


def test_a_split_of_ones_own(project: Project) -> None:
    project.replace("data_loader/points.py", "split = 0.25 if training else 0", "held_out = torch.tensor([30, 3, 17])")
    project.replace(
        "data_loader/points.py", "split, num_workers=0", "0, 0, valid_indices=held_out if training else None"
    )
    run_dir = project.train()
    points, classes = make_points(32, seed=0)
    held_out = torch.tensor([30, 3, 17])
    expected = plain_loss(trained_model(run_dir), points[held_out], classes[held_out])
    assert epochs_of(run_dir)[-1]["val_loss"] == pytest.approx(expected.item(), rel=1e-5)
    assert epochs_of(run_dir)[-1]["global_step"] == 2 * math.ceil(29 / 8)
    project.assert_changed("data_loader/points.py")


def test_sequences_of_many_lengths(project: Project) -> None:
    project.given(
        "model/sums.py",
        """
        from base import BaseModel
        from torch import nn


        class SumNet(BaseModel):
            def __init__(self):
                super().__init__()
                self.head = nn.Linear(4, 3)

            def forward(self, sequences):  # (N, L, 4), padded
                return self.head(sequences.sum(dim=1))
        """,
    )
    project.write(
        "data_loader/sequences.py",
        """
        import torch
        from torch.nn.utils.rnn import pad_sequence

        from base import BaseDataLoader
        from data_loader.points import make_points


        def pad(samples):
            sequences, classes = zip(*samples)
            return pad_sequence(list(sequences), batch_first=True), torch.stack(classes)


        class SequenceLoader(BaseDataLoader):
            def __init__(self, batch_size: int, training: bool = True):
                points, classes = make_points(32, seed=0)
                samples = [(points[: 1 + i % 5], classes[i]) for i in range(32)]
                super().__init__(samples, batch_size, training, 0.25 if training else 0, 0, collate_fn=pad)
        """,
    )
    project.configure(arch__type="SumNet", data_loader__type="SequenceLoader")
    run_dir = project.train()
    weights = newest(run_dir)["model"]
    points, classes = make_points(32, seed=0)
    sums = torch.stack([points[: 1 + i % 5].sum(dim=0) for i in VALID.tolist()])
    expected = F.cross_entropy(F.linear(sums, weights["head.weight"], weights["head.bias"]), classes[VALID])
    assert epochs_of(run_dir)[-1]["val_loss"] == pytest.approx(expected.item(), rel=1e-5)
    project.assert_changed("data_loader/sequences.py")


def test_batches_that_are_dicts(project: Project) -> None:
    project.given(
        "data_loader/dicts.py",
        """
        from base import BaseDataLoader
        from data_loader.points import make_points


        class DictLoader(BaseDataLoader):
            def __init__(self, batch_size: int, training: bool = True):
                points, classes = make_points(32, seed=0) if training else make_points(9, seed=1)
                samples = [{"point": p, "class": c, "name": str(i)} for i, (p, c) in enumerate(zip(points, classes))]
                super().__init__(samples, batch_size, training, 0.25 if training else 0, 0)
        """,
    )
    project.replace("trainer/batch.py", "inputs, targets = batch", 'inputs, targets = batch["point"], batch["class"]')
    project.configure(data_loader__type="DictLoader")
    run_dir = project.train()
    expected = plain_loss(trained_model(run_dir), *held_out())
    assert epochs_of(run_dir)[-1]["val_loss"] == pytest.approx(expected.item(), rel=1e-5)
    script = project.run("test.py", "-r", str(run_dir))
    expected = plain_loss(trained_model(run_dir), *make_points(9, seed=1))
    assert f"loss: {expected:.4f}" in script.output, script.output
    project.assert_changed("trainer/batch.py")


def test_a_model_of_two_outputs_and_an_auxiliary_loss(project: Project) -> None:
    project.given(
        "model/twice.py",
        """
        import torch

        from model.points import PointNet


        class TwiceNet(PointNet):
            def forward(self, points):
                hidden = torch.tanh(self.body(points))
                return self.head(hidden), hidden
        """,
    )
    project.replace("trainer/batch.py", "outputs = model(inputs)", "outputs, hidden = model(inputs)")
    project.replace(
        "trainer/batch.py",
        "BatchResult(criterion(outputs, targets), outputs",
        "BatchResult(criterion(outputs, targets) + 0.1 * hidden.square().mean(), outputs",
    )
    project.configure(arch__type="TwiceNet", data_loader__args__batch_size=24)
    run_dir = project.train()

    def loss(model: Any, points: Tensor, classes: Tensor) -> Tensor:
        return plain_loss(model, points, classes) + 0.1 * torch.tanh(model.body(points)).square().mean()

    model = new_model()
    train_by_hand(loss, model, torch.optim.SGD(model.parameters(), lr=LR))
    assert_weights(run_dir, model)
    assert epochs_of(run_dir)[-1]["val_loss"] == pytest.approx(loss(model, *held_out()).item(), rel=1e-5)
    project.assert_changed("trainer/batch.py")


def test_a_loss_over_what_is_not_masked(project: Project) -> None:
    project.given(
        "data_loader/points.py", LOADER.replace("        split =", "        classes[::3] = -1\n        split =")
    )
    project.replace(
        "trainer/batch.py",
        "    outputs = model(inputs)",
        """    is_known = targets >= 0
    outputs, targets = model(inputs)[is_known], targets[is_known]""",
    )
    project.replace("trainer/batch.py", "    return num_samples", "    return int((batch[1] >= 0).sum())")
    project.configure(data_loader__args__batch_size=5, trainer__grad_accum_steps=5)  # 24 samples: one step
    run_dir = project.train()

    def loss(model: nn.Module, points: Tensor, classes: Tensor) -> Tensor:
        return F.cross_entropy(model(points), classes, ignore_index=-1)

    points, classes = make_points(32, seed=0)
    classes[::3] = -1
    first = loss(new_model(), points[TRAIN], classes[TRAIN])
    assert epochs_of(run_dir)[0]["loss"] == pytest.approx(first.item(), rel=1e-5)
    expected = loss(trained_model(run_dir), points[VALID], classes[VALID])
    assert epochs_of(run_dir)[-1]["val_loss"] == pytest.approx(expected.item(), rel=1e-5)
    model = new_model()
    train_by_hand(
        lambda model, points, _: loss(model, points, classes[TRAIN]), model, torch.optim.SGD(model.parameters(), lr=LR)
    )
    assert_weights(run_dir, model)
    project.assert_changed("trainer/batch.py")


def test_a_second_optimizer(project: Project) -> None:
    project.replace(
        "trainer/trainer.py",
        "        self._set_up_step()\n        self.train",
        """        self.critic = nn.Linear(3, 1).to(device)
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), lr=0.01)
        self._set_up_step()
        self.train""",
    )
    project.replace(
        "trainer/trainer.py",
        "        self.ema.update()\n",
        """        self.ema.update()
        error = (self.critic(outputs.detach()).squeeze(1) - targets).square().mean()
        self.critic_optimizer.zero_grad()
        error.backward()
        self.critic_optimizer.step()
""",
    )
    run_dir = project.train()
    checkpoint = newest(run_dir)
    assert checkpoint["critic"].keys() == {"weight", "bias"}
    assert checkpoint["critic_optimizer"]["state"][0]["step"] == 6
    assert_same_run(run_dir, project.resume(run_dir))
    project.assert_changed("trainer/trainer.py")


def test_gradient_noise(project: Project) -> None:
    project.replace(
        "trainer/trainer.py",
        "        grad_norm = clip_gradients(",
        """        for parameter in self.parameters:
            parameter.grad += 0.5 * torch.randn_like(parameter.grad)
        grad_norm = clip_gradients(""",
    )
    project.configure(data_loader__args__batch_size=24)
    run_dir = project.train()
    model = new_model()
    for parameter in model.parameters():
        parameter.register_hook(lambda gradient: gradient + 0.5 * torch.randn_like(gradient))
    train_by_hand(plain_loss, model, torch.optim.SGD(model.parameters(), lr=LR))
    # assert_weights(run_dir, model)
    assert_same_run(run_dir, project.resume(run_dir))
    project.assert_changed("trainer/trainer.py")


def test_a_gradient_penalty(project: Project) -> None:
    project.replace(
        "trainer/trainer.py",
        "            loss = loss * (weight / total)",
        """            slopes = torch.autograd.grad(loss, list(self.model.parameters()), create_graph=True)
            loss = loss + 0.1 * sum(slope.square().sum() for slope in slopes)
            loss = loss * (weight / total)""",
    )
    project.configure(data_loader__args__batch_size=24)
    run_dir = project.train()

    def loss(model: nn.Module, points: Tensor, classes: Tensor) -> Tensor:
        value = plain_loss(model, points, classes)
        slopes = torch.autograd.grad(value, list(model.parameters()), create_graph=True)
        return value + 0.1 * torch.stack([slope.square().sum() for slope in slopes]).sum()

    model = new_model()
    points, classes = make_points(32, seed=0)
    first = loss(model, points[TRAIN], classes[TRAIN])
    assert epochs_of(run_dir)[0]["loss"] == pytest.approx(first.item(), rel=1e-5)
    train_by_hand(loss, model, torch.optim.SGD(model.parameters(), lr=LR))
    assert_weights(run_dir, model)
    project.assert_changed("trainer/trainer.py")


def test_layers_that_are_frozen_for_two_epochs(project: Project) -> None:
    project.add_method(
        "trainer/trainer.py",
        """
        def _before_epoch(self, epoch: int) -> None:
            self.model.body.requires_grad_(epoch > 2)
        """,
    )
    project.configure(trainer__epochs=3, optimizer={"type": "AdamW", "args": {"lr": 0.01}})
    run_dir = project.train()
    models = [new_model(), *(trained_model(run_dir / f"checkpoint-epoch{epoch}.pth") for epoch in (1, 2, 3))]
    weights = [(model.body.weight, model.head.weight) for model in models]
    moved = [[not torch.equal(one, other) for one, other in zip(*pair)] for pair in zip(weights, weights[1:])]
    assert moved == [[False, True], [False, True], [True, True]]
    assert_same_run(run_dir, project.resume(run_dir))
    project.assert_changed("trainer/trainer.py")


def test_a_log_of_ones_own(project: Project) -> None:
    project.add_method(
        "trainer/trainer.py",
        """
        def _finish_epoch(self, log: dict[str, float]) -> None:
            with open(self.checkpoint_dir / "epochs.csv", "a") as file:
                print(self.position.epoch, log["loss"], log["val_loss"], sep=",", file=file)
            super()._finish_epoch(log)
        """,
    )
    run_dir = project.train()
    rows = [[float(value) for value in row] for row in csv.reader(io.StringIO((run_dir / "epochs.csv").read_text()))]
    assert rows == [[log["epoch"], log["loss"], log["val_loss"]] for log in epochs_of(run_dir)]
    assert len(rows) == 2
    project.assert_changed("trainer/trainer.py")


def test_state_of_ones_own(project: Project) -> None:
    project.add_method(
        "trainer/trainer.py",
        """
        def _after_step(self) -> None:
            self.mean_lr.update(self.optimizer.param_groups[0]["lr"])
            super()._after_step()
        """,
    )
    project.assert_changed("trainer/trainer.py")


def test_a_key_of_ones_own(project: Project) -> None:
    project.append(
        "trainer/options.py",
        """
    loss_scale: float = Field(default=1.0, gt=0, description="factor of the training loss")
""",
    )
    project.replace("trainer/options.py", "import parse_config", "from pydantic import Field\n\nimport parse_config")
    project.replace("trainer/trainer.py", "loss = loss * (", "loss = loss * self.options.loss_scale * (")
    project.configure(trainer__loss_scale=0.25, data_loader__args__batch_size=24)
    run_dir = project.train()
    model = new_model()
    train_by_hand(plain_loss, model, torch.optim.SGD(model.parameters(), lr=LR / 4))
    assert_weights(run_dir, model)
    script = project.run("train.py", "-c", "config.json", "--set", "trainer.loss_scale=big")
    assert (script.code, script.output) == (2, "")
    project.assert_changed("trainer/options.py", "trainer/trainer.py")


def test_a_value_of_ones_own_stops_early(project: Project) -> None:
    project.append("trainer/options.py", '\n    LOGGED = ("body_norm",)\n')
    project.replace(
        "trainer/trainer.py",
        "        log |= self._valid_epoch(epoch)\n",
        """        log |= self._valid_epoch(epoch)
        log["body_norm"] = self.model.body.weight.norm().item()
""",
    )
    project.configure(
        trainer__epochs=9,
        trainer__monitor="max body_norm",
        trainer__early_stop=2,
        optimizer__args__weight_decay=0.5,
    )
    run_dir = project.train()
    norms = [log["body_norm"] for log in epochs_of(run_dir)]
    assert len(norms) == 3
    assert norms[-1] == pytest.approx(trained_model(run_dir).body.weight.norm().item())
    assert json.loads((run_dir / "status.json").read_text())["status"] == "early_stopped"
    assert newest(run_dir)["monitor"] == {"best": norms[0], "best_epoch": 1, "num_bad_epochs": 2}
    project.assert_changed("trainer/options.py", "trainer/trainer.py")
