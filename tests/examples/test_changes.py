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
import struct
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent, indent
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from fork_server import ForkServer, Script
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.utils.data import WeightedRandomSampler
from torchvision.io import ImageReadMode, decode_image

from base import BaseModel, split_indices
from checkpoint.file import load_checkpoint
from faults import assert_same_run, with_changes
from helpers import ROOT, epochs_of, newest
from new_project import create

ENGINE = ("base", "parse_config", "preflight", "checkpoint", "speed", "logger", "utils", "tests/engine")
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


@torch.no_grad()
def loss_of(model: nn.Module, points: Tensor, classes: Tensor) -> float:
    """Return the cross entropy of a model's outputs."""
    return F.cross_entropy(model(points), classes).item()


def one_step(model: nn.Module, loss: Tensor, lr: float = LR) -> dict[str, Tensor]:
    """Return the weights of `model` after a step of SGD."""
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    named = zip(model.named_parameters(), gradients)
    return {name: weight.detach() - lr * gradient for (name, weight), gradient in named}


def assert_weights(run_dir: Path, expected: dict[str, Tensor]) -> None:
    """Assert that the newest weights of a run are the expected ones."""
    got = newest(run_dir)["model"]
    assert got.keys() == expected.keys()
    for name in got:
        torch.testing.assert_close(got[name], expected[name])


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
    assert f"loss: {expected:.5f}" in script.output, script.output
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
    pixels = decode_image(torch.frombuffer(bytearray(image), dtype=torch.uint8), ImageReadMode.GRAY)[0]
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
    points, classes = make_points(32, seed=0)
    loss = F.cross_entropy(model(points[TRAIN]), classes[TRAIN])
    decay = 0.25 * sum(weight.square().sum() for weight in model.head.parameters())
    body = one_step(model, loss)
    head = one_step(model, loss + decay, lr=0.02) if False else {}
    project.assert_changed("model/points.py")
