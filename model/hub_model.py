"""Models of torch.hub: from a directory with a hubconf.py, or from a repository that you trust."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import torch
from torch import nn

from utils import ConfigError, nearest
from utils.errors import reading


def HubModel(
    repo: str, name: str, args: dict[str, Any] | None = None, trusted_repos: tuple[str, ...] = ()
) -> nn.Module:
    """Return the model that the entry point `name` of a hubconf.py builds from `args`.

    `repo` is a directory, or "owner/name" or "owner/name:ref" on GitHub. Its code is run, so a repository must be among
    `trusted_repos`, which only the command line can set (--trust-repo). Raises ConfigError.
    """
    is_local = Path(repo).is_dir()
    owner_and_name = repo.split(":")[0]
    if not is_local and owner_and_name not in trusted_repos:
        raise ConfigError(
            f"arch.args.repo: {repo!r} is not a directory; a repository's code can do anything: "
            f"give --trust-repo {owner_and_name} to run it"
        )
    how: dict[str, Any] = {"source": "local"} if is_local else {"source": "github", "trust_repo": True}
    names = _local_names(Path(repo)) if is_local else _names_on_github(repo)
    if name not in names:
        raise ConfigError(f"arch.args.name: no entry point {name!r}; {nearest(name, names)}")
    model = torch.hub.load(repo, name, **how, **(args or {}))
    if not isinstance(model, nn.Module):
        raise ConfigError(f"arch.args.name: {name!r} returns {type(model).__name__}, not a model")
    return model


def _local_names(folder: Path) -> list[str]:
    """Return the functions that the hubconf.py in `folder` defines or imports, without running it."""
    with reading(folder / "hubconf.py", ConfigError):
        tree = ast.parse((folder / "hubconf.py").read_text("utf-8"))
    own = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    imports = [alias for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    return own + [alias.asname or alias.name for alias in imports]


def _names_on_github(repo: str) -> list[str]:
    """Return the functions of a trusted repository, which torch downloads unless it is cached."""
    try:
        return list(torch.hub.list(repo, trust_repo=True))
    except (OSError, ValueError) as error:  # no network, or no repository of that name
        owner_and_name, _, ref = repo.partition(":")
        folder = Path(torch.hub.get_dir()) / f"{owner_and_name.replace('/', '_')}_{ref or 'main'}"
        reason = str(getattr(error, "reason", None) or error).splitlines()[0]
        raise ConfigError(f"arch.args.repo: {repo!r} cannot be read ({reason}); put a copy of it at {folder}") from None
