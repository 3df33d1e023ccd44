"""Finds, with its place, what Python's JSON reader accepts but should not, or refuses without a place."""

from __future__ import annotations

import json
import re

MAX_DEPTH = 100
TOO_DEEP = f"nested more than {MAX_DEPTH} levels deep"
# A string before a colon is a key. One that never ends is matched too: else the search would begin again at each quote.
TOKEN = re.compile(r'("[^"\\\n]*(?:\\.[^"\\\n]*)*"?)(\s*:)?|//|/\*|-?Infinity|NaN|[{}\[\]]')


def check_json(text: str) -> None:
    """Raise JSONDecodeError for the first comment, NaN, Infinity, repeated key or level beyond 100."""
    keys: list[set[str]] = []  # of each object or array that is open
    for match in TOKEN.finditer(text):
        token, problem = match.group(), None
        if match[2] and keys:
            key = _plain(match[1])
            problem = f"the key {match[1]} appears twice in one object" if key in keys[-1] else None
            keys[-1].add(key)
        elif token in ("//", "/*"):
            problem = "JSON has no comments; YAML has"
        elif token.endswith(("NaN", "Infinity")):
            problem = f"{token} is not a number that a config can hold"
        elif token in "{[":
            keys.append(set())
            problem = TOO_DEEP if len(keys) > MAX_DEPTH else None
        elif token in "}]" and keys:
            keys.pop()
        if problem:
            raise json.JSONDecodeError(problem, text, match.start())


def _plain(key: str) -> str:
    """Return the string that a JSON string stands for; where it is malformed, itself: the JSON reader reports that."""
    try:
        return str(json.loads(key))
    except json.JSONDecodeError:
        return key
