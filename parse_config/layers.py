"""A config as layers: parents that it extends, the file, the command line, defaults; and where each value is from."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from parse_config.config_file import read_config, size_limit
from parse_config.overrides import set_by_path
from utils.errors import ConfigError, printable
from utils.nested import flatten, with_brackets

MAX_FILES = 32  # that one config is made of; together they are as large as one may be


class ConfigLayers:
    """A config under construction, with the source of every value.

    `notices` say what a reader may not expect: arguments that were dropped because a `type` changed.
    """

    def __init__(self, config: dict[str, Any] | None = None) -> None:
        """Start with `config`, which is copied, or with an empty one."""
        self.config: dict[str, Any] = {}
        self.notices: list[str] = []
        self._origins: dict[str, str] = {}
        self._sizes: list[float] = []  # of the files, as shares of the limit
        self.add(config or {}, "config")

    def add_file(self, path: Path, seen: tuple[Path, ...] = ()) -> None:
        """Merge the parents that "extends" names, and then the config in `path`, into this one.

        Raises ConfigError where a file is malformed or missing, or extends itself.
        """
        content = read_config(path)
        if path.resolve() in seen:
            raise ConfigError(f"{path}: extends: leads back to itself")
        self._sizes.append(path.stat().st_size / size_limit(path))
        if len(self._sizes) > MAX_FILES or sum(self._sizes) > 1:
            raise ConfigError(f"{path}: extends: over {MAX_FILES} files in all, or together too large for a config")
        content.pop("$schema", None)  # for editors
        parents = content.pop("extends", [])
        parents = [parents] if isinstance(parents, str) else parents
        if not isinstance(parents, list) or not all(isinstance(parent, str) for parent in parents):
            raise ConfigError(f"{path}: extends: give the path of a config or a list of them, not {parents!r:.80}")
        for parent in parents:
            self.add_file(path.parent / parent, (*seen, path.resolve()))
        self.add(content, str(path))

    def add(self, content: dict[str, Any], source: str) -> None:
        """Merge `content` into this config: dicts merge deeply, all else replaces; "_keys" are comments."""
        self._merge(self.config, _without_comments(content), source, "")

    def override_all(self, values: Mapping[str, Any], source: str) -> set[str]:
        """Set keys by their dotted paths: sections before their keys, and a `type`, which drops args, before the args.

        A path that begins with "+" may be unknown. Return the other paths. Raises ConfigError.
        """
        given = {path.replace(";", "."): value for path, value in values.items()}
        for path, value in given.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ConfigError(f"{path}: {value} is not a number that a config can hold")
        for path in sorted(given, key=lambda path: (path.count("."), not path.endswith(".type"))):
            plain = path.removeprefix("+")
            before = deepcopy(self.config)
            dropped = set_by_path(self.config, plain, given[path])
            if dropped:
                self.notices.append(f"{source}: {plain}={given[path]}: the former args are dropped: {dropped}")
            old, new = flatten(before), flatten(self.config)
            self._origins |= dict.fromkeys((key for key in new if old.get(key) != new[key]), source)
            self._origins |= dict.fromkeys(flatten({with_brackets(plain): given[path]}), source)
        return {with_brackets(path) for path in given if not path.startswith("+")}

    def describe(self) -> Iterator[str]:
        """Yield "path = value  # source" for every value; what no layer has set is a default."""
        for path, value in flatten(self.config).items():
            yield f"{printable(path)} = {json.dumps(value)}  # {self._origins.get(path, 'default')}"

    def _merge(self, below: dict[str, Any], above: dict[str, Any], source: str, path: str) -> None:
        if "type" in below and "type" in above and below["type"] != above["type"] and below.pop("args", None):
            section = path.rstrip(".")
            self.notices.append(f"{source}: {section}: is a {above['type']}; the args of {below['type']} are dropped")
        for key, value in above.items():
            if isinstance(value, dict) and isinstance(below.get(key), dict):
                self._merge(below[key], value, source, f"{path}{key}.")
            else:
                below[key] = value
                self._origins |= dict.fromkeys(flatten({f"{path}{key}": value}), source)


def _without_comments(value: Any) -> Any:
    """Return a copy of nested dicts and lists without the keys that begin with "_"."""
    if isinstance(value, dict):
        return {key: _without_comments(item) for key, item in value.items() if not str(key).startswith("_")}
    return [_without_comments(item) for item in value] if isinstance(value, list) else value
