"""The house keeps its shape: imports go down only, files and functions stay small, and the step is four hops away.

What is yours in a fork, the engine has no say in: rules for `train.py`, `model/` and the like hold in the template
itself, which is known by its examples and the title of its README.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import ROOT

LAYERS = [
    {"train", "test", "predict", "average", "export", "sweep", "runs", "new_project"},
    {"slots"},
    {"data_loader", "model", "trainer"},
    {"preflight", "prediction", "deploy", "sweeps"},
    {"tables", "images"},
    {"base"},
    {"parse_config"},
    {"checkpoint"},
    {"distributed"},
    {"speed"},
    {"logger", "trackers"},
    {"utils"},
    {"history"},  # imports no other room, so that runs.py starts without torch
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
ENGINE = {
    *("new_project", "runs", "sweep", "sweeps", "preflight", "prediction", "deploy", "tables", "images"),
    *("base", "parse_config", "checkpoint", "distributed", "speed", "logger", "trackers", "utils", "history"),
}
MAX_FUNCTION_LINES, MAX_SHARE_OF_A_ROOM, MAX_UTILS = 40, 0.25, 15
README = ROOT / "README.md"
IS_TEMPLATE = (ROOT / "tests" / "examples").is_dir() and README.read_text("utf-8").startswith("# PyTorch template")
template_alone = pytest.mark.skipif(not IS_TEMPLATE, reason="in a fork, these files are its author's")


def files_of(rooms: set[str]) -> list[Path]:
    """Return the Python files of the rooms, each a script or a folder."""
    return sorted(path for room in rooms for path in [*ROOT.glob(f"{room}.py"), *ROOT.glob(f"{room}/**/*.py")])


FILES = files_of(ENGINE)
YOURS = files_of(set(RANK) - ENGINE) if IS_TEMPLATE else []


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def trees() -> dict[Path, ast.Module]:
    """Return the syntax tree of each file."""
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in [*FILES, *YOURS]}


def imports_of(tree: ast.AST, is_typing: bool = False) -> Iterator[tuple[str, bool]]:
    """Yield (module, whether for type checkers alone) of every import, of `from a.b import c` a.b.c."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, is_typing) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from ((f"{node.module}.{alias.name}", is_typing) for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from imports_of(ast.Module(node.body, []), True)
            yield from imports_of(ast.Module(node.orelse, []), is_typing)
        else:
            yield from imports_of(node, is_typing)


def test_imports_go_down_only(trees: dict[Path, ast.Module]) -> None:
    upward = []
    for path, tree in trees.items():
        own = path.relative_to(ROOT).parts[0].removesuffix(".py")
        rooms = {module.split(".")[0] for module, _ in imports_of(tree)} & RANK.keys()
        upward += [(name_of(path), room) for room in rooms - {own} if RANK[room] <= RANK[own]]
    assert upward == []


def file_of(module: str) -> Path | None:
    """Return the file of the project that `module`, or a name in it, is in."""
    for parts in (module.split("."), module.split(".")[:-1]):
        path = ROOT.joinpath(*parts)
        for candidate in (path.with_suffix(".py"), path / "__init__.py"):
            if parts and candidate.is_file():
                return candidate
    return None


def test_no_files_import_each_other_in_a_circle(trees: dict[Path, ast.Module]) -> None:
    graph = {
        path: {file_of(module) for module, is_typing in imports_of(tree) if not is_typing} & trees.keys()
        for path, tree in trees.items()
    }
    while leaves := {path for path, imported in graph.items() if not imported & graph.keys()}:
        for path in leaves:
            del graph[path]
    circle = [path for path in graph if any(path in imported for imported in graph.values())]
    assert [name_of(path) for path in circle] == []


def test_every_file_begins_with_what_it_is_for(trees: dict[Path, ast.Module]) -> None:
    assert [name_of(path) for path, tree in trees.items() if not ast.get_docstring(tree)] == []


def test_every_function_fits_one_screen(trees: dict[Path, ast.Module]) -> None:
    lengths = [
        (name_of(path), node.name, (node.end_lineno or 0) - node.lineno + 1)
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert [place for place in lengths if place[-1] > MAX_FUNCTION_LINES] == []


@template_alone
def test_no_room_is_most_of_the_house() -> None:
    sizes: dict[str, int] = {}
    for path in [*FILES, *YOURS]:
        room = path.relative_to(ROOT).parts[0]
        sizes[room] = sizes.get(room, 0) + path.read_text(encoding="utf-8").count("\n")
    biggest = max(sizes, key=lambda room: sizes[room])
    assert sizes[biggest] <= MAX_SHARE_OF_A_ROOM * sum(sizes.values()), f"{biggest} has {sizes[biggest]} lines"


def test_utils_is_no_attic() -> None:
    assert len(list((ROOT / "utils").glob("*.py"))) <= MAX_UTILS


# The step.


def source_of(path: str, name: str) -> str:
    """Return the source of the function `name` in the file; skip where a fork has none."""
    file = ROOT / path
    source = file.read_text(encoding="utf-8") if file.is_file() else ""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return ast.get_source_segment(source, node) or ""
    pytest.skip(f"{path} has no {name}: this fork's trainer is another")


@pytest.mark.parametrize(
    ("path", "name", "call"),
    [
        ("train.py", "main", "trainer.train("),
        ("base/base_trainer.py", "train", "self._train_epoch("),
        ("trainer/trainer.py", "_train_epoch", "self._train_step\n"),
        ("trainer/trainer.py", "_train_step", ".step(self.optimizer)"),
    ],
)
def test_the_call_chain_has_four_hops(path: str, name: str, call: str) -> None:
    source_of("trainer/trainer.py", "_train_step")
    assert call in source_of(path, name)


def test_the_training_step_shows_its_order_on_one_screen() -> None:
    text = source_of("trainer/trainer.py", "_train_step")
    order = ["zero_grad(", "run_batch(", ".backward(", "clip_gradients(", "scaler.step("]
    if not all(call in text for call in order):
        assert not IS_TEMPLATE
        pytest.skip("this fork's step is another")
    positions = [text.index(call) for call in order]
    assert positions == sorted(positions)


# Whose file is it.

ROW = re.compile(r"^\| `([^`]+)` \| (yours|engine|both) \| (.+) \|$", re.MULTILINE)


def rows() -> dict[str, str]:
    """Return who owns each path in the table of ARCHITECTURE.md."""
    found = ROW.findall((ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"))
    assert len(found) == len({path for path, _, _ in found}), "a path stands twice"
    return {path.rstrip("/"): owner for path, owner, _ in found}


@pytest.mark.skipif(not (ROOT / "ARCHITECTURE.md").is_file(), reason="this fork has no ARCHITECTURE.md")
def test_every_room_of_the_engine_is_in_the_table_and_there() -> None:
    owners = rows()
    assert {name.removesuffix(".py") for name, owner in owners.items() if owner == "engine"} >= ENGINE
    assert [name for name in ENGINE if not (ROOT / name).exists() and not (ROOT / f"{name}.py").exists()] == []


@template_alone
def test_the_table_lists_every_tracked_file_and_folder() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0 or not listed.stdout:
        pytest.skip("not a git checkout")
    assert rows().keys() == {path.split("/")[0] for path in listed.stdout.splitlines()}


@template_alone
def test_what_is_yours_knows_nothing_of_processes(trees: dict[Path, ast.Module]) -> None:
    for path in YOURS:
        names: set[str] = set()
        for node in ast.walk(trees[path]):
            names |= {value for _, value in ast.iter_fields(node) if isinstance(value, str) and value.isidentifier()}
        assert not names & {"rank", "world_size", "is_main"}, path
        assert not [module for module, _ in imports_of(trees[path]) if module.startswith("torch.distributed")], path
