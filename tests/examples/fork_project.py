"""A small project made from this template, to change as people do; and its training written by hand."""

from __future__ import annotations

import inspect
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent, indent
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from base import BaseModel, split_indices
from checkpoint.file import load_checkpoint
from faults import with_changes
from fork_server import ForkServer, Script
from helpers import epochs_of, newest

Loss = Callable[[Any, Tensor, Tensor], Tensor]

ENGINE = ("base", "parse_config", "preflight", "checkpoint", "speed", "logger", "utils", "tests/engine")
MADE_BY_RUNS = {"saved", "part", "__pycache__", "output.log"}
LR = 0.1


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
CONFIG: dict[str, Any] = {
    "name": "points",
    "n_gpu": 0,
    "arch": {"type": "PointNet"},
    "data_loader": {"type": "PointsLoader", "args": {"batch_size": 8}},
    "optimizer": {"type": "SGD", "args": {"lr": LR}},
    "loss": "cross_entropy",
    "metrics": ["accuracy"],
    "trainer": {"epochs": 2, "tensorboard": False},
}
POINTS, CLASSES = make_points(32, seed=0)
TRAIN, VALID = split_indices(32, 0.25, "split")
ONE_BATCH = {"data_loader__args__batch_size": len(TRAIN)}


class Project:
    """A project that is changed, and run in processes of its own."""

    def __init__(self, path: Path, server: ForkServer, engine: dict[str, bytes]) -> None:
        """`engine` is the content of the template's own engine files."""
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
        """Add functions or classes at the end of a file."""
        self.write(file, f"{self.read(file)}\n\n{dedent(text).strip()}\n")

    def add_to_class(self, file: str, text: str) -> None:
        """Add methods or attributes to the class at the end of a file."""
        self.write(file, f"{self.read(file)}\n{indent(dedent(text).strip(), '    ')}\n")

    def replace(self, file: str, old: str, new: str) -> None:
        """Change one place in a file."""
        assert self.read(file).count(old) == 1, f"{file} does not have one {old!r}"
        self.write(file, self.read(file).replace(old, new))

    def read(self, file: str) -> str:
        """Return what is in a file."""
        return (self.path / file).read_text()

    def configure(self, **changes: Any) -> None:
        """Change keys of config.json, as in trainer__epochs=3."""
        self.write("config.json", json.dumps(with_changes(json.loads(self.read("config.json")), **changes)))

    def run(self, *args: str) -> Script:
        """Run a script of the project to its end."""
        script = self._server.start(self.path, *args)
        script.wait()
        return script

    def train(self, *args: str) -> Path:
        """Train config.json; return the run directory."""
        script = self.run("train.py", "-c", "config.json", *args)
        assert script.code == 0, script.output
        (run_dir,) = (self.path / "saved" / "points").iterdir()
        return run_dir

    def resume(self, run_dir: Path) -> Path:
        """Go on with a copy of a run after its first epoch; return the copy."""
        copy = shutil.copytree(run_dir, self.path / "part" / "points" / run_dir.name)
        script = self.run("train.py", "-r", str(copy / "checkpoint-epoch1.pth"))
        assert script.code == 0, script.output
        return copy

    def test(self, run_dir: Path) -> dict[str, float]:
        """Return what test.py prints of a run."""
        script = self.run("test.py", "-r", str(run_dir))
        assert script.code == 0, script.output
        return {name: float(value) for name, value in re.findall(r"^(\w+): (\S+)$", script.output, re.MULTILINE)}

    def assert_changed(self, *files: str) -> None:
        """Assert that these files of the project were changed and no others, config.json aside; none of the engine."""
        now = contents(self.path)
        changed = {file for file in now.keys() | self._before.keys() if now.get(file) != self._before.get(file)}
        assert changed - {"config.json"} == set(files)
        assert engine_of(self.path) == self._engine


def contents(folder: Path) -> dict[str, bytes]:
    """Return the content of every file of a folder that no run has made, by its path."""
    files = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    return {file.as_posix(): path.read_bytes() for file, path in files.items() if not MADE_BY_RUNS & {*file.parts}}


def engine_of(project: Path) -> dict[str, bytes]:
    """Return the content of every file that an upgrade replaces."""
    folders = {folder: contents(project / folder) for folder in ENGINE}
    return {f"{folder}/{file}": content for folder, files in folders.items() for file, content in files.items()}


# What a run is compared with.


def val_loss(run_dir: Path) -> float:
    """Return the validation loss of a run's last epoch."""
    value: float = epochs_of(run_dir)[-1]["val_loss"]
    return value


def new_model() -> PointNet:
    """Return the model as a run begins with it; leaves the random state as it is there then."""
    torch.manual_seed(0)
    return PointNet()


def trained_model(checkpoint: Path) -> PointNet:
    """Return the model of a checkpoint, or of a run's newest."""
    model = PointNet()
    content = newest(checkpoint) if checkpoint.is_dir() else load_checkpoint(checkpoint)
    model.load_state_dict(content["model"])
    return model


def plain_loss(model: nn.Module, points: Tensor, classes: Tensor) -> Tensor:
    """Return the cross entropy of a model's outputs."""
    return F.cross_entropy(model(points), classes)


def train_by_hand(
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    *,
    loss: Loss = plain_loss,
    after_backward: Callable[[], None] = lambda: None,
) -> None:
    """Make two epochs of one step each, in plain torch."""
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=LR)
    for _ in range(2):
        optimizer.zero_grad()
        loss(model, POINTS[TRAIN], CLASSES[TRAIN]).backward()
        after_backward()
        optimizer.step()


def assert_weights(run_dir: Path, expected: nn.Module) -> None:
    """Assert that a run ended with the weights of `expected`."""
    torch.testing.assert_close(newest(run_dir)["model"], dict(expected.state_dict()))
