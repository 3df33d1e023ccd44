"""Parameter groups that a config describes by patterns: {"match": "body.*", "lr": 1e-4}."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

MATCH = "match"
MAX_GROUPS = 100
HINT = f'give a list of groups, each with "{MATCH}", a pattern of parameter names, and options of its own'


def group_problems(check: Callable[..., Iterator[str]], groups: Any, path: str) -> Iterator[str]:
    """Yield what is wrong with `groups`; `check(options, where)` yields what is wrong with the options of one."""
    if not isinstance(groups, list) or not groups or len(groups) > MAX_GROUPS:
        yield f"{path}: {HINT}; got {groups!r:.80}"
        return
    for index, group in enumerate(groups):
        where = f"{path}[{index}]"
        if not isinstance(group, dict):
            yield f"{where}: {HINT}; got {group!r:.80}"
            continue
        options = options_of(group)
        if MATCH not in group:
            names = ", ".join(options) or "nothing"
            yield f'{where}.{MATCH}: missing; a pattern of parameter names, as in "body.*"; there is {names}'
        elif not isinstance(group[MATCH], str):
            yield f"{where}.{MATCH}: give a pattern of parameter names, not {group[MATCH]!r:.80}"
        if "params" in options:
            yield f'{where}.params: say by "{MATCH}" which parameters these are'
        yield from check({name: value for name, value in options.items() if name != "params"}, where)


def options_of(group: dict[str, Any]) -> dict[str, Any]:
    """Return what a group sets for its parameters, such as their learning rate."""
    return {name: value for name, value in group.items() if name != MATCH}
