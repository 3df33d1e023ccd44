"""The code and the environment of a run as Markdown, for TensorBoard's page of texts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from history.files import read_diff, read_processes


def code_and_environment(run_dir: Path, environment: Mapping[str, Any]) -> dict[str, str]:
    """Return as Markdown what this process runs on, and where it is recorded, how its code differs from the commit."""
    processes = read_processes(run_dir)
    process = processes[-1] if processes else dict(environment)
    texts = {"environment": fenced(json.dumps(process, indent=4, default=str), "json")}
    if diff := read_diff(run_dir, process):
        texts["git_diff"] = fenced(diff, "diff")
    return texts


def fenced(text: str, language: str) -> str:
    """Return `text` as a block of code."""
    return f"```{language}\n{text.replace('```', '` ` `')}\n```"
