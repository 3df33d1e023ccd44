"""How the configs of runs differ."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from history.run import Run

NOT_COMPARED = {"name", "tag", "$schema", "trainer.save_dir"}
MISSING = "–"


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of nested dicts by dotted path."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return flat


def differing(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Return each key whose value is not the same in all runs, with the value in each; "–" where it has none."""
    configs = [flatten(run.config) for run in runs]
    keys = dict.fromkeys(key for config in configs for key in config if key not in NOT_COMPARED)
    values = {key: [config.get(key, MISSING) for config in configs] for key in keys}
    return {key: column for key, column in values.items() if any(value != column[0] for value in column)}


def unusual(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return for each run the values that most runs do not have, by the shortest unambiguous name."""
    found = differing(runs)
    names = short_names(list(found))
    differences: list[dict[str, Any]] = [{} for _ in runs]
    for key, column in found.items():
        texts = [json.dumps(value) for value in column]
        usual, count = Counter(texts).most_common(1)[0]
        for run, text, value in zip(differences, texts, column):
            if value != MISSING and not (text == usual and 2 * count > len(runs)):
                run[names[key]] = value
    return differences


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Return for each dotted path its shortest unique ending, such as "lr" for "optimizer.args.lr"."""
    endings = Counter(ending for key in keys for ending in _endings(key))
    return {key: next((ending for ending in _endings(key) if endings[ending] == 1), key) for key in keys}


def _endings(key: str) -> list[str]:
    """Return "lr", "args.lr", "optimizer.args.lr"."""
    parts = key.split(".")
    return [".".join(parts[start:]) for start in range(len(parts) - 1, -1, -1)]
