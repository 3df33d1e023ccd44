"""Mangles the values and the text of configs, so that they are wrong in ways that nobody thought of."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import yaml

Spot = tuple[Any, Any]
"""A dict or list, and the key or index of a value in it."""

FRAGMENTS = (
    *("{", "}", "[", "]", '"', "'", ":", ",", "\\", "\n", "\t", " ", "#", "//", "/*", "- ", "? ", "| ", "> ", "%", "@"),
    *("&a ", "*a", "&a [*a]", "<<: *a", "<<: {lr: 1}", "!!bool maybe", "!!int x", "!!float .", "!!binary x", "!!set "),
    *("!!timestamp x", "!!python/name:os.system ", "!x ", "!!str ", "!!null x", "!!omap [a: 1]", "---\n", "...\n"),
    *("1e999", "-1e-999", "9" * 30, "9" * 5000, "NaN", "-Infinity", ".inf", "0x1f", "1_000", "null", "true", "~"),
    *("\0", "\x1b[2J", "\x7f", "\r", "\x85", "\u2028", "\ufeff", "\ud800", "\\ud800", "\\u0000", "\\u001b", "\u202e"),
    *("[" * 500, "{a: " * 200, '{"a":' * 200, '"' * 1000, '\\"' * 5000, "x" * 5000, "k: 1\n" * 500, "[[]," * 300),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 7, 10**9, 10**9 + 1, 10**12, 10**30, -(10**30), 2**63, 2**64, 2**63 - 1),
    *(0.0, -0.0, 0.5, -0.5, 1.0, 1.5, 1e-300, 5e-324, 1e30, 1e300, -1e300, 1e39, 3.5e38),
    *("", " ", "x", "\0", "\x1b[31mred", "a\nb", "\u202e", "x" * 5000, "../../x", "/dev/zero", "val_loss", "epoch"),
    *("1e-4", "NaN", "auto", "cpu", "cuda:99", "min loss", "max val_x", "0.5 ** epoch", "9 ** 9 ** 9", "1 / epoch"),
    *("Adam", "SGD", "StepLR", "CyclicLR", "LambdaLR", "nll_loss", "accuracy", "Accuracy", "os.system", "__init__"),
    *([], [[]], [None], [0], [1, 2], [-1.0], ["1", "2"], [1e300], [{}], list(range(200)), [["x"] * 50] * 50),
    *({}, {"a": 1}, {"type": "Adam"}, {"type": None}, {"args": {}}, {"type": "x", "args": []}, {"\x1b": {"\0": 1}}),
    *({"type": "MultiStepLR", "args": {"milestones": ["1"]}}, {"type": "OneCycleLR", "args": {"max_lr": 1e300}}),
    *({"type": "ExponentialLR", "args": {"gamma": -2}}, {"type": "CosineAnnealingLR", "args": {"T_max": 0}}),
    *({"type": "CrossEntropyLoss", "args": {"weight": [0, 0]}}, {"type": "Accuracy", "args": {"task": "x"}}),
)


def mangled(config: dict[str, Any], suffix: str, generator: random.Random) -> bytes:
    """Return the file, JSON or YAML as `suffix` says, of `config` after up to three changes to its values or text."""
    config = deepcopy(config)
    if generator.random() < 0.5:
        for _ in range(generator.randint(1, 3)):
            _change_value(config, generator)
    dump: Callable[..., str] = json.dumps if suffix == ".json" else yaml.safe_dump
    text = dump(config, indent=generator.choice([None, 2]))
    for _ in range(generator.choice([0, 1, 2, 3])):
        text = _change_text(text, generator)
    data = bytearray(text.encode("utf-8", "surrogatepass"))
    if generator.random() < 0.15:
        for _ in range(generator.randint(1, 5)):
            data[generator.randrange(len(data))] = generator.randrange(256)
    return bytes(data)


def _change_value(config: dict[str, Any], generator: random.Random) -> None:
    node, key = generator.choice(list(_spots(config)) or [(config, "name")])
    kind = generator.choice(["replace", "replace", "replace", "remove", "rename", "nest", "copy"])
    if kind == "remove":
        del node[key]
    elif kind == "rename" and isinstance(node, dict):
        node[generator.choice([str(key)[1:], f"{key}x", "\x1b[2J", "", "x" * 3000, "type", "args"])] = node.pop(key)
    elif kind == "nest":
        for _ in range(generator.choice([1, 2, 98, 150])):
            node[key] = generator.choice([[node[key]], {"a": node[key]}])
    elif kind == "copy":
        node[key] = deepcopy(generator.choice(list(_spots(config)))[0])
    else:
        node[key] = deepcopy(generator.choice(VALUES))


def _spots(value: Any) -> list[Spot]:
    """Return every place in nested dicts and lists."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [spot for key in keys for spot in [(value, key), *_spots(value[key])]]


def _change_text(text: str, generator: random.Random) -> str:
    start, end = sorted(generator.randrange(len(text) + 1) for _ in range(2))
    kind = generator.choice(["insert", "insert", "insert", "cut", "remove", "repeat", "swap"])
    if kind == "insert":
        return text[:start] + generator.choice(FRAGMENTS) + text[start:]
    if kind == "cut":
        return text[:end]
    if kind == "remove":
        return text[:start] + text[min(end, start + 20) :]
    if kind == "repeat":
        return text[:end] + text[start:end] * generator.choice([1, 2, 20]) + text[end:]
    return text[start:end] + text[:start] + text[end:]
