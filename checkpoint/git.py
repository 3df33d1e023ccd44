"""Which code a run used: commit, branch, and what was changed since, as git knows it."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
TIMEOUT_S, MAX_DIFF_BYTES, MAX_UNTRACKED = 2.0, 1 << 20, 20
GIT = ("git", "--no-optional-locks", "-c", "core.fsmonitor=false")


def git_state(project: Path = PROJECT) -> dict[str, Any] | None:
    """Return commit, branch (None where HEAD is detached), is_dirty, and the names of untracked files.

    None where `project` lies in no git work tree, has no commit yet, or git is missing or takes longer than 2 s.
    """
    text = _git(project, "status", "--porcelain=v2", "--branch", "--untracked-files=normal", "--", ".")
    if text is None:
        return None
    lines = text.decode(errors="replace").splitlines()
    branch = dict(line[2:].split(" ", 1) for line in lines if line.startswith("# branch."))
    changed = [line for line in lines if not line.startswith("# ")]
    if branch.get("branch.oid", "(initial)") == "(initial)":
        return None
    name = branch.get("branch.head", "(detached)")
    return {
        "commit": branch["branch.oid"],
        "branch": None if name == "(detached)" else name,
        "is_dirty": bool(changed),
        "untracked": [line[2:] for line in changed if line.startswith("? ")][:MAX_UNTRACKED],
    }


def git_diff(project: Path = PROJECT) -> bytes:
    """Return how tracked files differ from the commit, cut after 1 MiB; b"" where git cannot say."""
    diff = _git(project, "diff", "HEAD", "--no-color", "--no-ext-diff", "--no-textconv", "--", ".") or b""
    return diff if len(diff) <= MAX_DIFF_BYTES else diff[:MAX_DIFF_BYTES] + b"\n[cut here: the diff is longer]\n"


def _git(project: Path, *args: str) -> bytes | None:
    """Return what a git command prints, at most a byte more than a diff may have; None where it fails or takes long."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}  # a hook sets GIT_DIR
    try:
        with tempfile.TemporaryFile() as out:  # a pipe would take a diff of any size into memory
            command = [*GIT, "-C", str(project), *args]
            null = subprocess.DEVNULL
            subprocess.run(command, stdin=null, stdout=out, stderr=null, env=env, timeout=TIMEOUT_S, check=True)
            out.seek(0)
            return out.read(MAX_DIFF_BYTES + 1)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
