"""What Python's JSON reader lets pass, or refuses without saying where: found in the text, with its place."""

from __future__ import annotations

import json
import re

MAX_DEPTH = 100
TOKEN = re.compile(r'"(?:\\.|[^"\\\n])*"|//|/\*|-?Infinity|NaN|[{}\[\],:]')


def find_mistake(text: str) -> tuple[int, str] | None:
    """Return offset and description of the first comment, NaN, Infinity, repeated key or level beyond 100, or None."""
    keys: list[set[str] | None] = []  # the keys of each open object; None for an open array
    last_string: tuple[str, int] | None = None
    for match in TOKEN.finditer(text):
        token, at = match.group(), match.start()
        if token in ("//", "/*"):
            return (at, "JSON has no comments; YAML has")
        if token in ("NaN", "Infinity", "-Infinity"):
            return (at, f"{token} is not a number that a config can hold")
        if token == ":" and last_string and keys and keys[-1] is not None:
            key, key_at = last_string
            if _plain(key) in keys[-1]:
                return (key_at, f"the key {key} stands twice in one object")
            keys[-1].add(_plain(key))
        elif token in "{[":
            keys.append(set() if token == "{" else None)
            if len(keys) > MAX_DEPTH:
                return (at, f"nested more than {MAX_DEPTH} levels deep")
        elif token in "}]" and keys:
            keys.pop()
        last_string = (token, at) if token.startswith('"') else None
    return None


def _plain(key: str) -> str:
    """Return the string that a JSON string stands for; where it is malformed, itself: the JSON reader tells that."""
    try:
        return str(json.loads(key))
    except json.JSONDecodeError:
        return key
