"""Reading a config file, JSON or YAML, into plain dicts; what either format would let pass silently is an error."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from utils.errors import ConfigError

MAX_BYTES = 1_000_000


def read_config(path: str | Path) -> dict[str, Any]:
    """Return the config in `path`; `.yaml` and `.yml` are YAML, all else is JSON.

    Raises ConfigError where the file is missing, not a mapping, over 1 MB, malformed (with line and column), or says
    NaN, Infinity or the same key twice.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        text = path.read_text(encoding="utf-8") if size <= MAX_BYTES else ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if size > MAX_BYTES:
        raise ConfigError(f"{path}: {size:,} bytes; a config has at most {MAX_BYTES:,}")
    try:
        parse = _parse_yaml if path.suffix in (".yaml", ".yml") else _parse_json
        config = parse(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}:{error.lineno}:{error.colno}: not valid JSON: {error.msg}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise ConfigError(f"{where}: not valid YAML: {error.problem}") from None
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        text = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ConfigError(f"{path}: {text}") from None
    if not isinstance(config, dict):
        raise ConfigError(f"{path}: a config is an object of sections, not {type(config).__name__}")
    return config


def _parse_json(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_unique_pairs, parse_constant=_refuse_constant)


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return result


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number that a config can hold")


class _YamlLoader(yaml.SafeLoader):
    """YAML's safe subset, with numbers as in YAML 1.2 and without repeated keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key_node, deep=True) for key_node, _ in node.value]
        for index, key in enumerate(keys):
            if key in keys[:index]:
                mark = node.value[index][0].start_mark
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", mark)
        return super().construct_mapping(node, deep)


# YAML 1.1, which PyYAML reads, takes 1e-4 for a string: it wants a dot and a sign.
_YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)$"), list("-+.0123456789")
)


def _parse_yaml(text: str) -> Any:
    loader = _YamlLoader(text)
    try:
        config = loader.get_single_data()
    finally:
        loader.dispose()
    json.dumps(config, allow_nan=False)  # ValueError for .nan and .inf, TypeError for dates
    return config
