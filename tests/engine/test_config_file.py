"""JSON and YAML configs read to the same dict, and what either would let pass silently is an error with its place."""

from __future__ import annotations

import json
import math
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import yaml

from parse_config.config_file import MAX_SIZE, read_config
from toy import CONFIG
from utils import ConfigError


def write(tmp_path: Path, name: str, text: str) -> Path:
    """Write a config file; return its path."""
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def message(path: Path) -> str:
    """Return what reading the config at `path` complains of, after the path."""
    with pytest.raises(ConfigError) as caught:
        read_config(path)
    assert len(caught.value.problems) == 1
    assert str(caught.value).startswith(f"{path}:")
    return str(caught.value).removeprefix(f"{path}:").strip()


@pytest.mark.parametrize("suffix", [".yaml", ".yml", ".json"])
def test_a_config_reads_the_same_in_every_format(tmp_path: Path, suffix: str) -> None:
    text = json.dumps(CONFIG) if suffix == ".json" else yaml.safe_dump(CONFIG)
    assert read_config(write(tmp_path, f"config{suffix}", text)) == CONFIG


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "+1e-4", "-2e3", "1.e5", ".5e-3", "1.5e+3", "0.1", "3", "-7"])
def test_yaml_numbers_are_the_numbers_that_they_look_like(tmp_path: Path, text: str) -> None:
    value = read_config(write(tmp_path, "c.yaml", f"lr: {text}"))["lr"]
    assert value == float(text)
    assert type(value) is (int if text.lstrip("-").isdigit() else float)


@pytest.mark.parametrize("text", ["'1e-4'", "e-4", "1e", "1e-4x", "0.95 ** epoch", "min val_loss"])
def test_yaml_text_stays_text(tmp_path: Path, text: str) -> None:
    assert read_config(write(tmp_path, "c.yaml", f"value: {text}")) == {"value": text.strip("'")}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: 2020-01-01T00:00:00 x\nb: !!binary aGk=\n", "the tag '!!binary' does not belong here"),
        ("1: a\n", "the key 1 is not a string"),
        ("a: .inf\n", "Out of range"),
    ],
)
def test_yaml_that_is_no_plain_tree_is_refused(text: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=reason):
        read_config(write(tmp_path, "c.yaml", text))


def test_plain_yaml_scalars_are_those_of_yaml_1_2(tmp_path: Path) -> None:
    text = "a: 1e-4\nb: off\nc: 010\nd: 1:30\ne: 1_000\nf: true\ng: ~\nh: -.5\ni: 2020-01-01\n"
    assert read_config(write(tmp_path, "c.yaml", text)) == {
        "a": 1e-4, "b": "off", "c": 10, "d": "1:30", "e": "1_000", "f": True, "g": None, "h": -0.5, "i": "2020-01-01",
    }  # fmt: skip


def test_json_numbers_beyond_float_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Out of range"):
        read_config(write(tmp_path, "c.json", '{"a": 1e999}'))


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("c.json", '{"a": 1,\n  "b": }', "2:8: not valid JSON: Expecting value"),
        ("c.json", "", "1:1: not valid JSON: Expecting value"),
        ("c.json", '{"a": 1} {}', "1:10: not valid JSON: Extra data"),
        (
            "c.yaml",
            "a: 1\nb: [1\nc: 2",
            "3:2: not valid YAML: while parsing a flow sequence, expected ',' or ']', but got ':'",
        ),
        (
            "c.yaml",
            "a: 1\n---\nb: 2",
            "2:1: not valid YAML: expected a single document in the stream, but found another document",
        ),
    ],
)
def test_malformed_text_is_reported_with_line_and_column(tmp_path: Path, name: str, text: str, expected: str) -> None:
    assert message(write(tmp_path, name, text)) == expected


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_json_constants_that_are_no_numbers_are_refused(tmp_path: Path, value: str) -> None:
    path = write(tmp_path, "c.json", f'{{"optimizer": {{"args": {{"lr": {value}}}}}}}')
    assert message(path) == f"1:31: not valid JSON: {value} is not a number that a config can hold"


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf", "1e999"])
def test_yaml_numbers_that_are_not_finite_are_refused(tmp_path: Path, value: str) -> None:
    assert "Out of range float" in message(write(tmp_path, "c.yaml", f"optimizer:\n  args: {{lr: {value}}}"))


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (
            "c.json",
            '{"a": {"lr": 1, "b": 2, "lr": 2}}',
            '1:25: not valid JSON: the key "lr" appears twice in one object',
        ),
        ("c.yaml", "a:\n  lr: 1\n  b: 2\n  lr: 2\n", "4:3: not valid YAML: the key 'lr' appears twice"),
        ("c.yaml", "a: {lr: 1, 'lr': 1}", "1:12: not valid YAML: the key 'lr' appears twice"),
    ],
)
def test_a_key_that_stands_twice_is_refused(tmp_path: Path, name: str, text: str, expected: str) -> None:
    assert message(write(tmp_path, name, text)) == expected


def test_one_key_in_two_objects_is_no_repetition(tmp_path: Path) -> None:
    expected = {"a": {"type": "x"}, "b": [{"type": "y"}, {"type": "z"}]}
    assert read_config(write(tmp_path, "c.json", json.dumps(expected))) == expected
    assert read_config(write(tmp_path, "c.yaml", yaml.safe_dump(expected))) == expected


@pytest.mark.parametrize(
    ("name", "text", "type_name"),
    [("c.json", "[1]", "list"), ("c.json", '"a"', "str"), ("c.yaml", "", "NoneType"), ("c.yaml", "- a", "list")],
)
def test_what_is_no_mapping_is_refused(tmp_path: Path, name: str, text: str, type_name: str) -> None:
    assert message(write(tmp_path, name, text)) == f"a config is an object of sections, not {type_name}"


@pytest.mark.parametrize("name", ["c.json", "c.yaml"])
def test_nesting_too_deep_for_the_parser_is_refused(tmp_path: Path, name: str) -> None:
    assert message(write(tmp_path, name, "[" * 100_000)).endswith("nested more than 100 levels deep")


def test_yaml_tags_build_no_python_objects(tmp_path: Path) -> None:
    marker = tmp_path / "made"
    text = f"a: !!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{marker}']]"
    assert "python/object/apply:pathlib.Path.touch' does not belong here" in message(write(tmp_path, "c.yaml", text))
    assert not marker.exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: &x {lr: 1}\nb: *x\n", {"a": {"lr": 1}, "b": {"lr": 1}}),
        ("a: &x 1e-4\nb: [*x, *x]\n", {"a": 1e-4, "b": [1e-4, 1e-4]}),
        ("a: &x name\nb: {*x : 1}\n", {"a": "name", "b": {"name": 1}}),
        ("a: &x {lr: 1, n: 2}\nb: {<<: *x, m: 3}\n", {"a": {"lr": 1, "n": 2}, "b": {"lr": 1, "n": 2, "m": 3}}),
        ("a: &x {lr: 1, n: 2}\nb: {<<: *x, lr: 5}\n", {"a": {"lr": 1, "n": 2}, "b": {"lr": 5, "n": 2}}),
        ("a: &x {lr: 1, n: 2}\nb: {lr: 5, <<: *x}\n", {"a": {"lr": 1, "n": 2}, "b": {"lr": 5, "n": 2}}),
        ("a: &x {p: 1}\nb: &y {<<: *x}\nc: {<<: *y}\n", {"a": {"p": 1}, "b": {"p": 1}, "c": {"p": 1}}),
        ("a: {<<: [&x {p: 1}, {p: 2, q: 2}]}\nb: *x\n", {"a": {"p": 1, "q": 2}, "b": {"p": 1}}),
        ("a: {<<: {p: 1}}\nb: {'<<': 2}\nc: <<\n", {"a": {"p": 1}, "b": {"<<": 2}, "c": "<<"}),
    ],
)  # fmt: skip
def test_yaml_aliases_and_merge_keys(tmp_path: Path, text: str, expected: dict[str, Any]) -> None:
    assert read_config(write(tmp_path, "c.yaml", text)) == expected


def containers(value: Any) -> list[Any]:
    """Return every dict and list in `value`, itself included, once for each place where it stands."""
    if not isinstance(value, dict | list):
        return []
    children = value.values() if isinstance(value, dict) else value
    return [value, *(found for child in children for found in containers(child))]


def test_every_place_of_an_alias_has_a_copy_of_its_own(tmp_path: Path) -> None:
    text = "a: &x {args: &y {lr: 1, betas: [1, 2]}}\nb: *x\nc: {<<: *x}\nd: [{<<: [*x, *y]}, *y, {<<: *y}, *x]\n"
    config = read_config(write(tmp_path, "c.yaml", text))
    places = containers(config)
    assert len({id(place) for place in places}) == len(places)
    config["a"]["args"]["lr"] = 2
    config["a"]["args"]["betas"].append(3)
    assert config["b"] == config["c"] == config["d"][3] == {"args": {"lr": 1, "betas": [1, 2]}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: &a [*a]", "1:4: not valid YAML: an alias stands inside what it names"),
        ("c: 1\na: &a\n  b: {c: *a}", "2:4: not valid YAML: an alias stands inside what it names"),
        ("a: &a {<<: *a}", "1:4: not valid YAML: an alias stands inside what it names"),
        ("base: 1\nb: *base", "2:4: not valid YAML: found undefined alias 'base'"),
        ("a: &x 1\nb: &x 2", "2:4: not valid YAML: found duplicate anchor 'x'; first occurrence, second occurrence"),
        ("a: {<<: {p: 1}, <<: {q: 2}}", "1:17: not valid YAML: the key '<<' appears twice"),
        ("a: {<<: {p: 1, p: 2}}", "1:16: not valid YAML: the key 'p' appears twice"),
        (
            "a: {<<: 1}",
            "1:9: not valid YAML: while constructing a mapping, expected a mapping or list of mappings for merging, "
            "but found scalar",
        ),
    ],
)  # fmt: skip
def test_aliases_that_make_no_tree_are_refused(tmp_path: Path, text: str, expected: str) -> None:
    assert message(write(tmp_path, "c.yaml", text)) == expected


def laughs(levels: int, item: str) -> str:
    """Return the YAML of anchors of which each repeats the one before it as `item` says."""
    lines = [f"a{level}: &a{level} " + item.replace("*", f"*a{level - 1}") for level in range(1, levels)]
    return "\n".join(["a0: &a0 {x: 1}", *lines])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            laughs(10, f"[{', '.join('*' * 10)}]"),
            "6:5: not valid YAML: more than 100,000 values with its aliases expanded",
        ),
        (laughs(40, "{l: *, r: *}"), "more than 100,000 values with its aliases expanded"),
        (laughs(40, "{l: {<<: *}, r: {<<: *}}"), "more than 100,000 values with its aliases expanded"),
        (
            f"a: &a {'x' * 50_000}\nb: [{', '.join(['*a'] * 1000)}]",
            "more than 100,000 values with its aliases expanded",
        ),
        (laughs(200, "{x: *}"), "nested more than 100 levels deep"),
        (laughs(200, "[*]"), "nested more than 100 levels deep"),
    ],
    ids=["wide", "double", "merged", "text", "deep", "deep list"],
)
def test_alias_bombs_are_refused_before_they_expand(tmp_path: Path, text: str, expected: str) -> None:
    path = write(tmp_path, "c.yaml", text)
    tracemalloc.start()
    try:
        assert message(path).endswith(expected)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_a_hundred_thousand_values_are_no_bomb(tmp_path: Path) -> None:
    config = read_config(write(tmp_path, "c.yaml", f"a: &a [{', '.join('1' * 98)}]\nb: [{', '.join(['*a'] * 1000)}]"))
    assert config["b"] == [[1] * 98] * 1000


def test_a_missing_file_and_a_directory_are_reported_as_such(tmp_path: Path) -> None:
    assert message(tmp_path / "missing.json") == "cannot be read: No such file or directory"
    assert message(tmp_path) == "is not a file"


@pytest.mark.parametrize("name", ["c.json", "c.yaml"])
def test_bytes_that_are_not_utf8_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes('{"name": "é"}'.encode("latin-1"))
    assert message(tmp_path / name).startswith("cannot be read: 'utf-8' codec")


@pytest.mark.parametrize(("suffix", "limit"), [(".json", "1,000,000"), (".yaml", "100,000")])
def test_a_config_may_be_so_large_and_no_larger(suffix: str, limit: str, tmp_path: Path) -> None:
    assert read_config(write(tmp_path, f"c{suffix}", '{"a": 1}'.ljust(MAX_SIZE[suffix]))) == {"a": 1}
    path = write(tmp_path, f"c{suffix}", '{"a": 1}'.ljust(MAX_SIZE[suffix] + 1))
    assert message(path) == f"too large; a config has at most {limit} bytes"


def test_numbers_keep_their_type_and_precision(tmp_path: Path) -> None:
    config: dict[str, Any] = {"i": 2**60, "f": 0.1, "tiny": 5e-324, "e": math.e, "t": True, "n": None}
    for name, text in (("c.json", json.dumps(config)), ("c.yaml", yaml.safe_dump(config, sort_keys=False))):
        read = read_config(write(tmp_path, name, text))
        assert read == config
        assert [type(value) for value in read.values()] == [type(value) for value in config.values()]


def test_a_byte_order_mark_of_a_windows_editor_is_read_over(tmp_path: Path) -> None:
    assert read_config(write(tmp_path, "c.json", '\ufeff{"a": 1}')) == {"a": 1}


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "c.json")
    assert message(tmp_path / "c.json") == "is not a file"


def test_an_escaped_key_is_the_same_key(tmp_path: Path) -> None:
    assert "appears twice" in message(write(tmp_path, "c.json", '{"name": "a", "n\\u0061me": "b"}'))
