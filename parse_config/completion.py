"""Tab completion for shells: the flags, and for --set the dotted paths of the config."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import shtab

BASH = """
_set_paths() {{ compopt -o nospace 2>/dev/null; compgen -W "{words}" -- "$1"; }}
"""
ZSH = """
_set_paths() {{ local -a paths=({words}); compadd -S '' -a paths; }}
"""


def completion_script(parser: argparse.ArgumentParser, shell: str, paths: Sequence[str]) -> str:
    """Return the script that completes the flags of `parser` in `shell`, and `paths` after --set."""
    words = " ".join(f"{path}=" for path in paths)
    for action in parser._actions:
        if "--set" in action.option_strings:
            action.complete = {"bash": "_set_paths", "zsh": "_set_paths"}  # type: ignore[attr-defined]
        elif action.dest in ("config", "resume"):
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    preamble = {"bash": BASH, "zsh": ZSH}.get(shell, "").format(words=words)
    return shtab.complete(parser, shell=shell, preamble=preamble)
