#!/usr/bin/env python3
"""Start a project of your own from this one: python new_project.py ../my-project."""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path

from utils import ConfigError, exit_on_user_error

ROOT = Path(__file__).resolve().parent
# What belongs to this checkout and not to a new project: the first only at the top, the second wherever it is.
RUNS_AND_DATA = {".git", ".venv", ".venv-bench", "saved", "data"}
# What only the examples (MNIST, CSV, Parquet) are made of; the engine and its tests do without.
EXAMPLES = (
    *("config.json", "config.schema.json", "configs", "benchmarks", "data_loader/[!_]*", "model/model.py"),
    *("model/gan.py", "trainer/gan.py"),
    *("tests/examples", "tests/forks", "docs/notebook.ipynb"),
)
CACHES = ("__pycache__", "*.egg-info", ".pytest_cache", ".ruff_cache", ".mypy_cache", "*.tmp")


def left_behind(directory: str, names: list[str]) -> set[str]:
    """Return which `names` in `directory` are not copied."""
    at_top = RUNS_AND_DATA if Path(directory) == ROOT else set()
    return at_top | shutil.ignore_patterns(*CACHES)(directory, names)


def create(target: Path, is_empty: bool = False) -> Path:
    """Copy the project to `target`, without the examples where it `is_empty`; return its absolute path.

    Raises ConfigError, before anything is written, where `target` exists, lies inside this project, has no parent
    directory, or has a name that shells and tools stumble over.
    """
    path = target.absolute().parent.resolve() / target.name
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}", path.name):
        raise ConfigError(f"{target}: {path.name!r} is not a project name; use letters, digits, '.', '_' and '-'")
    if path.exists() or path.is_symlink():
        raise ConfigError(f"{target}: exists already; name a directory that does not")
    if not path.parent.is_dir():
        raise ConfigError(f"{target}: there is no directory {path.parent}")
    if path.is_relative_to(ROOT):
        raise ConfigError(f"{target}: lies inside this project; name a directory outside {ROOT}")
    try:
        shutil.copytree(ROOT, path, ignore=left_behind, symlinks=True)
        for example in [found for pattern in EXAMPLES if is_empty for found in path.glob(pattern)]:
            shutil.rmtree(example) if example.is_dir() else example.unlink()
    except (OSError, shutil.Error) as error:
        shutil.rmtree(path, ignore_errors=True)
        raise ConfigError(f"{target}: cannot be written: {error}") from None
    return path


def main(argv: list[str] | None = None) -> None:
    """Create the project and say what comes next."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("target", type=Path, help="directory to create")
    parser.add_argument("--empty", action="store_true", help="leave out the examples: their data, models and tests")
    args = parser.parse_args(argv)
    path = create(args.target, args.empty)
    print(f"created {path}\nnext:  cd {path} && git init && make {'test' if args.empty else 'train'}")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
