"""Models of torch.hub: from a directory with a hubconf.py, or from a repository that you trust."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from utils import ConfigError, nearest


def HubModel(
    repo: str, name: str, args: dict[str, Any] | None = None, trusted_repos: tuple[str, ...] = ()
) -> nn.Module:
    """Return what the entry point `name` of a hubconf.py makes of `args`.

    `repo` is a directory, or "owner/name" or "owner/name:ref" on GitHub. Its code is run. So a repository must be among
    `trusted_repos`, which the command line alone gives (--trust-repo). Raises ConfigError.
    """
    is_local = Path(repo).is_dir()
    owner_and_name = repo.split(":")[0]
    if not is_local and owner_and_name not in trusted_repos:
        raise ConfigError(
            f"arch.args.repo: {repo!r} is no directory, and to run the code of a repository, which can do anything, "
            f"give --trust-repo {owner_and_name}"
        )
    how: dict[str, Any] = {"source": "local"} if is_local else {"source": "github", "trust_repo": True}
    try:
        names = torch.hub.list(repo, **how)
    except (OSError, ValueError) as error:  # without network, or a name that is none of a repository
        folder = Path(torch.hub.get_dir()) / f"{owner_and_name.replace('/', '_')}_{repo.partition(':')[2] or 'main'}"
        hint = "there is no hubconf.py in it" if is_local else f"put a copy of it at {folder}"
        reason = str(getattr(error, "reason", None) or error).splitlines()[0]
        raise ConfigError(f"arch.args.repo: {repo!r} cannot be read ({reason}); {hint}") from None
    if name not in names:
        raise ConfigError(f"arch.args.name: no entry point {name!r}; {nearest(name, names)}")
    model = torch.hub.load(repo, name, **how, **(args or {}))
    if not isinstance(model, nn.Module):
        raise ConfigError(f"arch.args.name: {name!r} gives a {type(model).__name__}, not a model")
    return model
