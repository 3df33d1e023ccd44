"""The tutorial works as written: its files are put into an empty project, and its commands are run there."""

from __future__ import annotations

import math
import re
import shlex
import shutil
from pathlib import Path

import pytest

from faults import curves_of
from fork_server import ForkServer
from helpers import ROOT

TUTORIAL = ROOT / "docs" / "tutorial.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# file: (\S+)\n")
VALUE = re.compile(r"\b(?:val_)?(?:loss|accuracy) (\S+)")


def run_command(line: str, project: Path, server: ForkServer) -> str:
    """Run a command of the tutorial in `project`, as a shell there would; return what it printed."""
    python, *words = shlex.split(line.removeprefix("$ "))
    assert python == "python", line
    args = [arg for word in words for arg in (expanded(word, project) if "*" in word else [word])]
    script = server.start(project, *args)
    assert script.wait() == 0, f"{line}\n{script.output}"
    return script.output


def expanded(pattern: str, project: Path) -> list[str]:
    """Return the one path that a pattern such as "saved/Spirals/*" matches."""
    paths = [path.relative_to(project).as_posix() for path in project.glob(pattern)]
    assert len(paths) == 1, f"{pattern} matches {paths}"
    return paths


@pytest.mark.e2e
def test_the_tutorial_leads_from_an_empty_project_to_a_tested_model(
    empty_project: Path, fork_server: ForkServer, tmp_path: Path
) -> None:
    project = shutil.copytree(empty_project, tmp_path / "my-project")
    outputs = []
    for language, text in BLOCK.findall(TUTORIAL.read_text(encoding="utf-8")):
        file = FILE.match(text)
        if file:
            (project / file[1]).write_text(text[file.end() :], encoding="utf-8")
        elif language == "console":
            outputs += [run_command(line, project, fork_server) for line in text.splitlines()]
    _, resumed, tested, with_few_labels, gan = outputs
    assert "epoch 11/20" in resumed
    assert "epoch 10/20" not in resumed
    assert float(re.findall(r"^accuracy: (\S+)$", tested, re.MULTILINE)[0]) > 0.9
    last_epoch = re.findall(r"^epoch .*$", with_few_labels, re.MULTILINE)[-1]
    values = [float(value) for value in VALUE.findall(last_epoch)]
    assert len(values) == 4
    assert all(math.isfinite(value) for value in values)
    assert "generator_loss" in gan
    (run_dir,) = (project / "saved" / "SpiralsGan").iterdir()
    assert len(curves_of(run_dir)["samples/generator"]) == 5
