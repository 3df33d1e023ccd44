"""Overrides of config keys from the command line."""

from __future__ import annotations

import json
import re
from typing import Any

from parse_config.config_file import parse_json
from parse_config.json_scan import MAX_DEPTH, TOO_DEEP
from utils.errors import ConfigError


def parse_override(text: str) -> tuple[str, Any]:
    """Split "optimizer.args.lr=3e-4" into its path and value; the value is JSON, or else a string.

    Raises ConfigError for what no config file could hold, such as NaN or text that is not Unicode.
    """
    path, equals, value = text.partition("=")
    if not equals or not path:
        raise ConfigError(f"--set {text}: write PATH=VALUE, as in optimizer.args.lr=3e-4")
    try:
        text.encode()
        return path, parse_json(value)
    except json.JSONDecodeError as error:
        if value.strip() in ("NaN", "Infinity", "-Infinity") or "levels deep" in error.msg:
            raise ConfigError(f"--set {path}: {error.msg}") from None
        return path, value
    except ValueError as error:
        raise ConfigError(f"--set {path}: {error}") from None


def set_by_path(config: dict[str, Any], path: str, value: Any) -> dict[str, Any] | None:
    """Set the key at `path`, in place: "a.b.c", or the published template's "a;b;c"; "a.0" and "a[0]" index a list.

    Missing dicts are made; the check of the whole config finds keys that must not exist. A section that is a bare
    string, such as "loss": "nll_loss", is its `type`. Where a `type` changes, its `args` are removed and returned.
    Raises ConfigError where the path leads through a value that has no keys.
    """
    *parents, last = re.sub(r"\[(\d+)\]", r".\1", path.replace(";", ".")).split(".")
    if len(parents) >= MAX_DEPTH:
        raise ConfigError(f"{path}: {TOO_DEEP}")
    node: Any = config
    for part, following in zip(parents, [*parents[1:], last]):
        child = node.setdefault(part, {}) if isinstance(node, dict) else _item(node, part, path)
        if isinstance(child, str) and following in ("type", "args", "name"):
            child = {"type": child}
            _set(node, part, child, path)
        node = child
    is_new_type = last == "type" and isinstance(node, dict) and node.get("type") != value
    dropped: dict[str, Any] | None = node.pop("args", None) if is_new_type else None
    _set(node, last, value, path)
    return dropped


def _set(node: Any, key: str, value: Any, path: str) -> None:
    if isinstance(node, dict):
        node[key] = value
    else:
        _item(node, key, path)
        node[int(key)] = value


def _item(node: Any, part: str, path: str) -> Any:
    if isinstance(node, list) and part.isdecimal() and part.isascii() and len(part) < 9 and int(part) < len(node):
        return node[int(part)]
    what = f"a list of {len(node)}" if isinstance(node, list) else f"{node!r:.80}"
    raise ConfigError(f"{path}: {part!r} leads nowhere: there is {what}")
