"""Reading a config file, JSON or YAML, into plain dicts; what either format would let pass silently is an error."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from parse_config.json_scan import MAX_DEPTH, TOO_DEEP, check_json
from utils.errors import ConfigError, reading

MAX_SIZE = {".json": 1_000_000, ".yaml": 100_000}  # in bytes; PyYAML is ten times slower
STRING_TAG = "tag:yaml.org,2002:str"
MAX_NODES = 100_000  # in a YAML config with its aliases expanded; ten characters of text count as one more


def read_config(path: str | Path) -> dict[str, Any]:
    """Return the config in `path`; `.yaml` and `.yml` are YAML, all else is JSON.

    Raises ConfigError where the file is missing, not a mapping, too large, malformed (with line and column), or says
    NaN, Infinity or the same key twice. YAML may use anchors, aliases and merge keys; every place has its own copy.
    """
    path = Path(path)
    max_size = size_limit(path)
    with reading(path, ConfigError):
        if path.exists() and not path.is_file():  # a pipe or a device could keep us reading for ever
            raise ConfigError(f"{path}: is not a file")
        with path.open("rb") as file:
            data = file.read(max_size + 1)
        text = data.decode("utf-8-sig")
    if len(data) > max_size:
        raise ConfigError(f"{path}: too large; a config has at most {max_size:,} bytes")
    try:
        config = _tree(yaml.load(text, _YamlLoader)) if _is_yaml(path) else parse_json(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}:{error.lineno}:{error.colno}: not valid JSON: {error.msg}") from None
    except yaml.MarkedYAMLError as error:
        mark, problem = error.problem_mark, ", ".join(filter(None, (error.context, error.problem)))
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise ConfigError(f"{where}: not valid YAML: {problem}") from None
    except (ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {error}") from None
    if not isinstance(config, dict):
        raise ConfigError(f"{path}: a config is an object of sections, not {type(config).__name__}")
    return config


def size_limit(path: Path) -> int:
    """Return how many bytes the config in `path` may have."""
    return MAX_SIZE[".yaml" if _is_yaml(path) else ".json"]


def check_size(config: dict[str, Any]) -> None:
    """Raise ConfigError where `config`, saved with one value per line, would be too large to be read again."""
    if len(json.dumps(config, indent=4)) >= MAX_SIZE[".json"]:
        raise ConfigError("the config, as the run would keep it, is too large to be read again")


def parse_json(text: str) -> Any:
    """Return the JSON value in `text`. Raises JSONDecodeError, or ValueError for 1e999, 2**63 or half a character."""
    check_json(text)
    return _tree(json.loads(text, parse_int=_int))


def _is_yaml(path: Path) -> bool:
    return path.suffix in (".yaml", ".yml")


def _tree(value: Any) -> Any:
    """Return a copy whose parts share nothing. Raises ValueError for infinity, NaN and what UTF-8 cannot encode."""
    return json.loads(json.dumps(value, allow_nan=False, ensure_ascii=False).encode())


def _int(text: str) -> int:
    if len(text) > 20 or not -(2**63) <= int(text) < 2**63:  # Python itself refuses over 4,300 digits, and is slow
        raise ValueError(f"{text:.40} is an integer of more than 64 bits")
    return int(text)


class _YamlLoader(yaml.SafeLoader):
    """YAML's safe subset with the plain scalars of YAML 1.2 ("off" is a string, 1e-4 a number)."""

    def get_single_node(self) -> Any:
        """Return the document's node, None for an empty one. Raises MarkedYAMLError where `_measure` does."""
        try:
            node = super().get_single_node()
            if node is not None:
                _measure(node, {})
        except RecursionError:
            raise yaml.MarkedYAMLError(None, None, TOO_DEEP, self.get_mark()) from None
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Return the value of `node`. Raises MarkedYAMLError for a tag that its text does not have by itself."""
        tag = node.tag.replace("tag:yaml.org,2002:", "!!")
        if node.tag not in (STRING_TAG, self.resolve(type(node), node.value, (True, False))):
            raise yaml.MarkedYAMLError(None, None, f"the tag {tag!r:.80} does not belong here", node.start_mark)
        return super().construct_object(node, deep)


def _measure(node: yaml.Node, known: dict[yaml.Node, tuple[int, int] | None]) -> tuple[int, int]:
    """Return the size and the depth of `node` with its aliases expanded: ten lines of them can fill the memory.

    `known` has the measures of other nodes, and None for the nodes around this one. Raises MarkedYAMLError for a node
    that is too large, too deep or inside itself, and for keys that are not strings or appear twice.
    """
    if node not in known:
        known[node] = None
        children = [] if isinstance(node, yaml.ScalarNode) else node.value
        if isinstance(node, yaml.MappingNode):
            _check_keys(node)
            children = [child for pair in node.value for child in pair]
        size, depth = 1 if children else 1 + len(node.value) // 10, 1  # a long text is more than one value
        for child in children:
            child_size, child_depth = _measure(child, known)
            size, depth = size + child_size, max(depth, child_depth + 1)
        if size > MAX_NODES or depth > MAX_DEPTH:
            problem = TOO_DEEP if depth > MAX_DEPTH else f"more than {MAX_NODES:,} values with its aliases expanded"
            raise yaml.MarkedYAMLError(None, None, problem, node.start_mark)
        known[node] = size, depth
    measure = known[node]
    if measure is None:
        raise yaml.MarkedYAMLError(None, None, "an alias stands inside what it names", node.start_mark)
    return measure


def _check_keys(node: yaml.MappingNode) -> None:
    seen: set[str] = set()
    for key, _ in node.value:
        if key.tag not in (STRING_TAG, "tag:yaml.org,2002:merge"):
            raise yaml.MarkedYAMLError(None, None, f"the key {key.value!s:.40} is not a string", key.start_mark)
        if key.value in seen:
            raise yaml.MarkedYAMLError(None, None, f"the key {key.value!r} appears twice", key.start_mark)
        seen.add(key.value)


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
_YamlLoader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: _int(node.value))
_YamlLoader.add_constructor("tag:yaml.org,2002:merge", lambda loader, node: node.value)  # as a value it is text
