"""The code and the environment of a run as Markdown, for TensorBoard's page of texts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MAX_DIFF = 200_000  # characters


def code_and_environment(run_dir: Path, environment: Mapping[str, Any]) -> dict[str, str]:
    """Return as Markdown what this process runs on, and where it is recorded, how its code differs from the commit."""
    texts: dict[str, str] = {}
    try:
        process = json.loads((run_dir / "environment.json").read_text(encoding="utf-8"))["processes"][-1]
        name = (process.get("git") or {}).get("diff")
        if name:
            diff = (run_dir / Path(name).name).read_text(encoding="utf-8", errors="replace")
            texts["git_diff"] = fenced(diff[:MAX_DIFF], "diff")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        process = dict(environment)
    return {"environment": fenced(json.dumps(process, indent=4, default=str), "json")} | texts


def fenced(text: str, language: str) -> str:
    """Return `text` as a block of code."""
    return f"```{language}\n{text.replace('```', '` ` `')}\n```"
