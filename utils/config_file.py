"""Reading a config file, JSON or YAML, into plain dicts; what either format would let pass silently is an error."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import yaml

from utils.errors import ConfigError
from utils.json_scan import MAX_DEPTH, find_mistake

MAX_BYTES = 1_000_000


def read_config(path: str | Path) -> dict[str, Any]:
    """Return the config in `path`; `.yaml` and `.yml` are YAML, all else is JSON.

    Raises ConfigError where the file is missing, not a mapping, over 1 MB, malformed (with line and column), or says
    NaN, Infinity or the same key twice.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if path.exists() and not path.is_file():  # a pipe or a device could keep us reading for ever
            raise ConfigError(f"{path}: is no file")
        text = path.read_text(encoding="utf-8-sig") if size <= MAX_BYTES else ""
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if size > MAX_BYTES:
        raise ConfigError(f"{path}: {size:,} bytes; a config has at most {MAX_BYTES:,}")
    try:
        parse = _parse_yaml if path.suffix in (".yaml", ".yml") else parse_json
        config = parse(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}:{error.lineno}:{error.colno}: not valid JSON: {error.msg}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise ConfigError(f"{where}: not valid YAML: {error.problem}") from None
    except (ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        text = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ConfigError(f"{path}: {text}") from None
    if not isinstance(config, dict):
        raise ConfigError(f"{path}: a config is an object of sections, not {type(config).__name__}")
    return config


def parse_json(text: str) -> Any:
    """Return the JSON value in `text`. Raises JSONDecodeError, or ValueError for 1e999."""
    mistake = find_mistake(text)
    if mistake:
        raise json.JSONDecodeError(mistake[1], text, mistake[0])
    return json.loads(text, parse_float=_parse_finite)


def _parse_finite(text: str) -> float:
    if not math.isfinite(float(text)):
        raise ValueError(f"{text} is beyond what a float holds")
    return float(text)


class _YamlLoader(yaml.SafeLoader):
    """YAML's safe subset with the plain scalars of YAML 1.2 ("off" is a string, 1e-4 a number), unique string keys,
    and no aliases: a config is a tree, and seven lines of nested aliases would fill the memory.
    """

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        mark = self.peek_event().start_mark
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not taken in a config", mark)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise yaml.composer.ComposerError(None, None, f"nested more than {MAX_DEPTH} levels deep", mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key_node, deep=True) for key_node, _ in node.value]
        for index, key in enumerate(keys):
            mark = node.value[index][0].start_mark
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is no string", mark)
            if key in keys[:index]:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", mark)
        return super().construct_mapping(node, deep)


# PyYAML resolves plain scalars as in YAML 1.1; these are those of YAML 1.2's core schema (section 10.3.2).
_YamlLoader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
):
    _YamlLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))
_YamlLoader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(node.value))


def _parse_yaml(text: str) -> Any:
    loader = _YamlLoader(text)
    try:
        config = loader.get_single_data()
    finally:
        loader.dispose()
    json.dumps(config, allow_nan=False)  # ValueError for .nan and .inf, TypeError for dates
    return config
