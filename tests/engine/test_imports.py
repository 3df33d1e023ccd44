"""The house keeps its shape: imports go down only, and the training step stays on one screen, four hops away."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from helpers import ROOT

LAYERS = [
    {"train", "test", "new_project"},
    {"slots"},
    {"data_loader", "model", "trainer"},
    {"base"},
    {"parse_config"},
    {"logger"},
    {"utils"},
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
FILES = sorted(path for name in RANK for path in [*ROOT.glob(f"{name}.py"), *ROOT.glob(f"{name}/*.py")])


def own_imports(path: Path) -> set[str]:
    """Return the project's own top-level modules that the file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names & RANK.keys()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down_only(path: Path) -> None:
    own = path.relative_to(ROOT).parts[0].removesuffix(".py")
    upward = {name for name in own_imports(path) - {own} if RANK[name] <= RANK[own]}
    assert not upward, f"{own} must not import {upward}"


def test_every_part_of_the_house_has_a_layer() -> None:
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    scripts = {path.stem for path in ROOT.glob("*.py")}
    assert folders | scripts <= RANK.keys()


def test_every_file_begins_with_what_it_is_for() -> None:
    assert [path for path in FILES if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))] == []


def test_the_call_chain_has_four_hops() -> None:
    chain = [("train.py", "main", "train("), ("base/base_trainer.py", "train", "_train_epoch(")]
    chain += [
        ("trainer/trainer.py", "_train_epoch", "self._train_step\n"),
        ("trainer/trainer.py", "_train_step", ".step(self.opt"),
    ]
    for path, name, call in chain:
        source = (ROOT / path).read_text(encoding="utf-8")
        functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
        function = next(function for function in functions if function.name == name)
        assert call in (ast.get_source_segment(source, function) or "")


def test_the_training_step_shows_its_order_on_one_screen() -> None:
    source = (ROOT / "trainer" / "trainer.py").read_text(encoding="utf-8")
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    step = next(function for function in functions if function.name == "_train_step")
    text = ast.get_source_segment(source, step) or ""
    order = ["zero_grad(", "self.model(", "self.criterion(", ".backward(", "clip_gradients(", "scaler.step("]
    positions = [text.index(call) for call in order]
    assert positions == sorted(positions)
    assert text.count("\n") < 40
