"""Overrides of the command line: a path and a JSON value or a string, set in dicts and lists alike."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from parse_config.overrides import parse_override, set_by_path
from utils import ConfigError

CONFIG: dict[str, Any] = {
    "name": "run",
    "optimizer": {"type": "Adam", "args": {"lr": 0.1}},
    "metrics": ["accuracy", {"type": "top_k_acc", "args": {"k": 3}}],
    "lr_scheduler": None,
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("optimizer.args.lr=3e-4", ("optimizer.args.lr", 3e-4)),
        ("trainer.epochs=5", ("trainer.epochs", 5)),
        ("a=true", ("a", True)),
        ("a=null", ("a", None)),
        ("a=[1, 2]", ("a", [1, 2])),
        ('a={"type": "SGD"}', ("a", {"type": "SGD"})),
        ('a="5"', ("a", "5")),
        ("a=text", ("a", "text")),
        ("a=min val_loss", ("a", "min val_loss")),
        ("a=0.95 ** epoch", ("a", "0.95 ** epoch")),
        ("a=b=c", ("a", "b=c")),
        ("a=", ("a", "")),
        ("a=[1,", ("a", "[1,")),
        ("a;b=1", ("a;b", 1)),
    ],
)
def test_an_override_is_a_path_and_a_json_value_or_else_a_string(text: str, expected: tuple[str, Any]) -> None:
    path, value = parse_override(text)
    assert (path, value, type(value)) == (*expected, type(expected[1]))


@pytest.mark.parametrize("text", ["optimizer.args.lr", "", "=5"])
def test_an_override_without_path_or_value_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_override(text)
    assert str(caught.value) == f"--set {text}: write PATH=VALUE, as in optimizer.args.lr=3e-4"


@pytest.mark.parametrize(
    ("path", "keys"),
    [
        ("name", ["name"]),
        ("optimizer.args.lr", ["optimizer", "args", "lr"]),
        ("optimizer;args;lr", ["optimizer", "args", "lr"]),
        ("optimizer.args.weight_decay", ["optimizer", "args", "weight_decay"]),
        ("trainer.deep.er", ["trainer", "deep", "er"]),
        ("metrics.0", ["metrics", 0]),
        ("metrics.1.args.k", ["metrics", 1, "args", "k"]),
        ("lr_scheduler", ["lr_scheduler"]),
    ],
)
@pytest.mark.parametrize("value", [5, {"a": 1}, None])
def test_setting_changes_the_one_value_and_nothing_else(path: str, keys: list[Any], value: Any) -> None:
    config, expected = deepcopy(CONFIG), deepcopy(CONFIG)
    node: Any = expected
    for key in keys[:-1]:
        node = node.setdefault(key, {}) if isinstance(node, dict) else node[key]
    node[keys[-1]] = value
    set_by_path(config, path, value)
    assert config == expected


@pytest.mark.parametrize(
    ("path", "part", "what"),
    [
        ("name.x", "x", "'run'"),
        ("name.x.y", "x", "'run'"),
        ("optimizer.args.lr.x", "x", "0.1"),
        ("lr_scheduler.args.gamma", "args", "None"),
        ("metrics.2", "2", "a list of 2"),
        ("metrics.-1", "-1", "a list of 2"),
        ("metrics.first", "first", "a list of 2"),
        ("metrics.7.args", "7", "a list of 2"),
        ("metrics.0.k", "k", "'accuracy'"),
    ],
)
def test_a_path_through_a_value_without_keys_is_refused(path: str, part: str, what: str) -> None:
    config = deepcopy(CONFIG)
    with pytest.raises(ConfigError) as caught:
        set_by_path(config, path, 1)
    assert str(caught.value) == f"{path}: {part!r} leads nowhere: there is {what}"
    assert config == CONFIG


@pytest.mark.parametrize("text", ["a=NaN", "a=1e999", "a=-Infinity", "a=" + "[" * 100_000])
def test_values_that_no_config_file_could_hold_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--set a: "):
        parse_override(text)


def test_a_section_that_is_a_bare_string_is_its_type() -> None:
    config = {"loss": "nll_loss", "metrics": ["accuracy", "top_k_acc"]}
    set_by_path(config, "metrics.1.args.k", 5)
    set_by_path(config, "loss.type", "cross_entropy")
    assert config == {
        "loss": {"type": "cross_entropy"},
        "metrics": ["accuracy", {"type": "top_k_acc", "args": {"k": 5}}],
    }


def test_the_args_of_a_type_go_with_it() -> None:
    config = {"optimizer": {"type": "Adam", "args": {"lr": 1, "amsgrad": True}}}
    set_by_path(config, "optimizer.type", "Adam")
    assert config["optimizer"]["args"] == {"lr": 1, "amsgrad": True}
    set_by_path(config, "optimizer.type", "SGD")
    assert config["optimizer"] == {"type": "SGD"}
