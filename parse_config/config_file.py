"""Reading a config file, JSON or YAML, into plain dicts; what either format would let pass silently is an error."""

from __future__ import annotations

import json
import math
import re
from copy import copy as shallow_copy
from pathlib import Path
from typing import Any

import yaml

from parse_config.json_scan import MAX_DEPTH, find_mistake
from utils.errors import ConfigError, nearest

MAX_BYTES = 1_000_000
MAX_NODES = 100_000  # in a YAML config with its aliases expanded; ten characters of text count as one more


def read_config(path: str | Path) -> dict[str, Any]:
    """Return the config in `path`; `.yaml` and `.yml` are YAML, all else is JSON.

    Raises ConfigError where the file is missing, not a mapping, over 1 MB, malformed (with line and column), or says
    NaN, Infinity or the same key twice. YAML may use anchors, aliases and merge keys; every place has its own copy.
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
    """YAML's safe subset with the plain scalars of YAML 1.2 ("off" is a string, 1e-4 a number) and unique string keys.

    An alias (*name) becomes a copy of what its anchor (&name) names, so a config is a tree whose parts share nothing.
    Size and depth of that tree are checked before anything is copied: ten lines of nested aliases can fill the memory.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = self.deepest = 0
        self.size = 0  # of what has been read so far, with each alias expanded
        self.measures: dict[Any, tuple[int, int]] = {}  # size and levels of each anchored node that has been read

    def compose_node(self, parent: yaml.Node | None, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            self._measure_alias(event)
            return super().compose_node(parent, index)
        if event.anchor in self.anchors:
            raise _mistake(f"the anchor &{event.anchor} stands twice", event)
        size_before, deepest_before = self.size, self.deepest
        self.deepest = self._checked_depth(self.depth + 1, event)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        self.size += 1 + len(node.value) // 10 if isinstance(node, yaml.ScalarNode) else 1  # a long text is more
        self.measures[node] = self.size - size_before, self.deepest - self.depth
        self.deepest = max(self.deepest, deepest_before)
        return node

    def get_single_node(self) -> Any:
        return _copy_tree(super().get_single_node())

    def _measure_alias(self, event: Any) -> None:
        name = event.anchor
        if name not in self.anchors:
            hint = f"; {nearest(name, self.anchors)}" if self.anchors else ""
            raise _mistake(f"the alias *{name} has no anchor &{name} before it{hint}", event)
        if self.anchors[name] not in self.measures:
            raise _mistake(f"the alias *{name} stands inside what it names", event)
        size, levels = self.measures[self.anchors[name]]
        self.size += size
        if self.size > MAX_NODES:
            raise _mistake(f"with the alias *{name} the config expands to more than {MAX_NODES:,} values", event)
        self.deepest = max(self.deepest, self._checked_depth(self.depth + levels, event))

    def _checked_depth(self, depth: int, event: Any) -> int:
        if depth > MAX_DEPTH:
            raise _mistake(f"nested more than {MAX_DEPTH} levels deep", event)
        return depth

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Replace merge keys (<<) by what they merge, after checking the keys as written: one may override a merged."""
        keys: set[str] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise _mistake(f"the key {key!r:.40} is no string", key_node)
            if key in keys:
                raise _mistake(f"the key {key!r} stands twice", key_node)
            keys.add(key)
        super().flatten_mapping(node)


def _mistake(problem: str, place: Any) -> yaml.MarkedYAMLError:
    """Return the error for a mistake at `place`, a node or an event."""
    return yaml.MarkedYAMLError(problem=problem, problem_mark=place.start_mark)


def _copy_tree(node: Any) -> Any:
    """Return a copy of `node`, None included, in which no node stands in two places."""
    copy = shallow_copy(node)
    if isinstance(node, yaml.MappingNode):
        copy.value = [(_copy_tree(key), _copy_tree(value)) for key, value in node.value]
    elif isinstance(node, yaml.SequenceNode):
        copy.value = [_copy_tree(value) for value in node.value]
    return copy


# PyYAML resolves plain scalars as in YAML 1.1; these are those of YAML 1.2's core schema (section 10.3.2).
_YamlLoader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
    ("merge", r"<<", "<"),  # a key of YAML 1.1 that YAML 1.2 dropped and every config uses
):
    _YamlLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))
_YamlLoader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(node.value))
_YamlLoader.add_constructor("tag:yaml.org,2002:merge", lambda loader, node: node.value)  # as a value it is text


def _parse_yaml(text: str) -> Any:
    loader = _YamlLoader(text)
    try:
        config = loader.get_single_data()
    finally:
        loader.dispose()
    json.dumps(config, allow_nan=False)  # ValueError for .nan and .inf, TypeError for dates
    return config
