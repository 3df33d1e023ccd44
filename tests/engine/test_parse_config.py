"""ConfigParser builds what the config names, fills in defaults, and tells all mistakes at once."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from parse_config import ConfigParser, CustomArg
from slots import SLOTS
from utils import ConfigError


def parser(config: dict[str, Any], **modification: Any) -> ConfigParser:
    """Return a parser of `config` with keys such as optimizer__args__lr changed."""
    changes = {path.replace("__", ";"): value for path, value in modification.items()}
    return ConfigParser(config, modification=changes, slots=SLOTS)


def problems(config: dict[str, Any]) -> list[str]:
    """Return what is wrong with `config`."""
    with pytest.raises(ConfigError) as caught:
        parser(config)
    return caught.value.problems


def test_it_builds_an_optimizer_and_a_scheduler(config: dict[str, Any]) -> None:
    parsed = parser(config, optimizer__args__lr=0.5)
    optimizer = parsed.init_obj("optimizer", torch.optim, nn.Linear(1, 1).parameters())
    assert isinstance(optimizer, torch.optim.Adam)
    scheduler = parsed.init_obj("lr_scheduler", optimizer=optimizer)
    rates = []
    for _ in range(3):
        rates += scheduler.get_last_lr()
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([0.5 * 0.85**epoch for epoch in range(3)])


def test_losses_are_functions_or_classes_of_torch(config: dict[str, Any]) -> None:
    outputs, targets = torch.randn(4, 10), torch.tensor([1, 2, 3, 4])
    by_name = parser(config, loss="cross_entropy").init_obj("loss")
    by_class = parser(config, loss={"type": "CrossEntropyLoss"}).init_obj("loss")
    assert torch.equal(by_name(outputs, targets), by_class(outputs, targets))
    args = {"label_smoothing": 0.1}
    by_name = parser(config, loss={"type": "cross_entropy", "args": args}).init_obj("loss")
    by_class = parser(config, loss={"type": "CrossEntropyLoss", "args": args}).init_obj("loss")
    assert torch.equal(by_name(outputs, targets), by_class(outputs, targets))


def test_metrics_have_the_names_of_the_config(config: dict[str, Any]) -> None:
    config["metrics"] = [
        "accuracy",
        {"type": "top_k_acc", "args": {"k": 5}, "name": "top5"},
        {"type": "accuracy", "name": "acc"},
        {"type": "MulticlassF1Score", "args": {"num_classes": 10}},
    ]
    built = parser(config).init_obj("metrics")
    assert [metric.__name__ for metric in built] == ["accuracy", "top5", "acc", "MulticlassF1Score"]
    outputs = torch.eye(10)
    assert built[1](outputs, torch.arange(10)) == 1


def test_a_partial_holds_arguments_and_adds_more(config: dict[str, Any]) -> None:
    make = parser(config).init_ftn("arch", None, num_classes=3)
    assert make().fc2.out_features == 3
    assert make().fc1_drop.p == 0.1


def test_defaults_are_filled_in_and_the_given_dict_is_left_alone(config: dict[str, Any]) -> None:
    before = repr(config)
    parsed = parser(config)
    assert parsed["device"] == "auto"
    assert parsed["trainer"]["len_epoch"] is None
    assert repr(config) == before


def test_nothing_is_made_before_the_run_starts(config: dict[str, Any], tmp_path: Path) -> None:
    parsed = parser(config)
    assert list(tmp_path.iterdir()) == []
    parsed.make_run_dir()
    parsed.start_logging()
    assert sorted(path.name for path in parsed.save_dir.iterdir()) == ["config.json", "info.log"]


def test_runs_of_one_second_get_directories_of_their_own(config: dict[str, Any]) -> None:
    parsers = [ConfigParser(config, run_id="same", slots=SLOTS) for _ in range(3)]
    for parsed in parsers:
        parsed.make_run_dir()
    assert [parsed.save_dir.name for parsed in parsers] == ["same", "same-2", "same-3"]


def test_flags_and_set_override_keys(config: dict[str, Any], tmp_path: Path) -> None:
    cli = argparse.ArgumentParser()
    for flag in ("-c/--config", "-r/--resume", "-d/--device"):
        cli.add_argument(*flag.split("/"))
    options = [CustomArg(["--lr", "--learning_rate"], type=float, target="optimizer;args;lr")]
    argv = ["-c", "config.json", "--learning_rate", "0.5", "-d", "cpu", "--set", "metrics=[]", "--set", "name=x"]
    parsed = ConfigParser.from_args(cli, options, slots=SLOTS, argv=argv)
    assert parsed["optimizer"]["args"]["lr"] == 0.5
    assert parsed["device"] == "cpu"
    assert parsed["metrics"] == []
    assert parsed["name"] == "x"


def test_all_mistakes_are_told_at_once(config: dict[str, Any]) -> None:
    config["optimizer"]["args"]["lrr"] = 1
    config["trainer"]["epoch"] = 3
    config["seed"] = "abc"
    config["metric"] = []
    del config["arch"]
    assert problems(config) == [
        "seed: Input should be a valid integer; got 'abc'",
        "arch: missing",
        "trainer.epoch: unknown key; did you mean 'epochs'?",
        "metric: unknown key; did you mean 'metrics'?",
        "optimizer.args.lrr: unknown argument of Adam; did you mean 'lr'?",
    ]


@pytest.mark.parametrize(
    ("section", "name"),
    [
        ("arch", "nn"),
        ("arch", "F"),
        ("arch", "BaseModel"),
        ("arch", "__builtins__"),
        ("arch", "os.system"),
        ("loss", "F"),
        ("loss", "Tensor"),
        ("optimizer", "Optimizer"),
        ("optimizer", "lr_scheduler"),
        ("data_loader", "mnist"),
        ("data_loader", "BaseDataLoader"),
        ("lr_scheduler", "LRScheduler"),
        ("lr_scheduler", "warnings"),
    ],
)
def test_types_are_confined_to_their_slot(config: dict[str, Any], section: str, name: str) -> None:
    config[section] = {"type": name}
    assert problems(config)[0].startswith(f"{section}.type: unknown type {name!r}")


@pytest.mark.parametrize("argument", ["params", "training", "optimizer"])
def test_what_the_code_gives_cannot_stand_in_a_config(config: dict[str, Any], argument: str) -> None:
    section = {"params": "optimizer", "training": "data_loader", "optimizer": "lr_scheduler"}[argument]
    config[section]["args"][argument] = 1
    assert f"{section}.args.{argument}: is given by the code and cannot stand in a config" in problems(config)


def test_a_section_of_a_forks_own_needs_one_more_slot(config: dict[str, Any]) -> None:
    config["discriminator"] = {"type": "MnistModel", "args": {"num_classes": 2}}
    assert problems(config)[0].startswith("discriminator: unknown key")
    slots = SLOTS | {"discriminator": SLOTS["arch"]}
    assert ConfigParser(config, slots=slots).init_obj("discriminator").fc2.out_features == 2
    config["discriminator"]["args"] = {"classes": 2}
    with pytest.raises(ConfigError, match=r"discriminator\.args\.classes: unknown argument of MnistModel"):
        ConfigParser(config, slots=slots)


def test_two_metrics_of_one_name_are_told(config: dict[str, Any]) -> None:
    config["metrics"] = ["accuracy", {"type": "accuracy"}]
    assert problems(config) == ["metrics: 'accuracy' stands twice; give one of them a \"name\""]
