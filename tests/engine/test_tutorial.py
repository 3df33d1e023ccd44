"""The tutorial works as written: its files are put into an empty project, and its commands are run there."""

from __future__ import annotations

import json
import math
import re
import shlex
import subprocess
import sys
from pathlib import Path

from helpers import ROOT
from new_project import create

TUTORIAL = ROOT / "docs" / "tutorial.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# file: (\S+)\n")


def run_command(line: str, project: Path) -> str:
    """Run a command of the tutorial in `project`, as a shell there would; return what it printed."""
    words = shlex.split(line)
    assert words[0] == "python", line
    expanded = [word for part in words[1:] for word in (_matches(part, project) if "*" in part else [part])]
    command = [sys.executable, *expanded]
    result = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, f"{line}\n{result.stdout}{result.stderr}"
    return result.stdout


def _matches(pattern: str, project: Path) -> list[str]:
    paths = sorted(path.relative_to(project).as_posix() for path in project.glob(pattern))
    assert len(paths) == 1, f"{pattern} is {paths}"
    return paths


def test_the_tutorial_leads_from_an_empty_project_to_a_trained_model(tmp_path: Path) -> None:
    project = create(tmp_path / "my-project", is_empty=True)
    outputs = []
    for language, text in BLOCK.findall(TUTORIAL.read_text(encoding="utf-8")):
        file = FILE.match(text)
        if file:
            (project / file[1]).write_text(text[file.end() :], encoding="utf-8")
        elif language == "console":
            outputs += [run_command(line.removeprefix("$ "), project) for line in text.splitlines()]
    assert len(outputs) == 4
    assert float(re.findall(r"^accuracy: (\S+)$", outputs[2], re.MULTILINE)[0]) > 0.9  # of test.py
    values = re.findall(r"  (?:val_)?(?:loss|accuracy) (\S+)", outputs[-1])
    assert len(values) == 4 * json.loads((project / "config.json").read_text())["trainer"]["epochs"]
    assert all(math.isfinite(float(value)) for value in values)
