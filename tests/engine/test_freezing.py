"""Freezing: what is frozen stays to the bit, what is thawed trains, and a stop in between changes nothing."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import toy
from base import param_groups
from base.freezing import Freezing, describe_groups, matching
from base.groups import layer_depths
from checkpoint.file import load_checkpoint
from checkpoint.foreign import read_weights
from helpers import newest
from parse_config.options import FineTuneOptions
from toy_runs import assert_exact_at, parsed, run, small_config, stopped_at, train
from utils import CheckpointError, ConfigError

BODY = ["hidden.*", "norm.*"]
THAWED = {"freeze": BODY, "unfreeze_at": {"2": ["norm.*"], "3": ["hidden.weight"]}}


def frozen(model: nn.Module, lr: float = 0.1, **options: Any) -> tuple[Freezing, torch.optim.Optimizer]:
    """Return the freezing of `model` in the first epoch, and its optimizer."""
    optimizer = torch.optim.SGD(param_groups(model), lr)
    return Freezing(model, optimizer, FineTuneOptions(**options)), optimizer


def test_frozen_weights_and_statistics_stay_to_the_bit(tmp_path: Path) -> None:
    run_dir = train(small_config(tmp_path, fine_tune={"freeze": BODY}, trainer__save_every_steps=1))
    initial = toy.build_trainer(parsed(small_config(tmp_path))).model.state_dict()
    trained = newest(run_dir)
    for name, value in trained["model"].items():
        assert torch.equal(value, initial[name]) == (not name.startswith("head")), name
    assert [group["params"] for group in trained["optimizer"]["param_groups"]] == [[0, 1]]


@pytest.mark.parametrize("optimizer", ["Adam", "Adagrad", "SGD", "Rprop", "NAdam"])
def test_a_run_that_stops_around_the_epoch_that_thaws_goes_on_to_the_bit(optimizer: str, tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "optimizer": {"type": optimizer, "args": {"lr": 0.01}},
        "trainer__epochs": 3,
        "fine_tune": THAWED,
    }
    if optimizer == "SGD":
        changes["optimizer"]["args"]["momentum"] = 0.9
    places = (5, 6, 7, 12, 13, 14) if optimizer == "Adam" else (6, 7)  # of 6 steps an epoch; epochs 2 and 3 thaw
    whole = assert_exact_at(places, tmp_path, **changes)
    initial = toy.build_trainer(parsed(small_config(tmp_path))).model.state_dict()
    first, second, third = (load_checkpoint(whole / f"checkpoint-epoch{epoch}.pth")["model"] for epoch in (1, 2, 3))
    assert torch.equal(first["norm.weight"], initial["norm.weight"])
    assert torch.equal(first["norm.running_mean"], initial["norm.running_mean"])
    assert not torch.equal(second["norm.weight"], initial["norm.weight"])
    assert not torch.equal(second["norm.running_mean"], initial["norm.running_mean"])
    assert torch.equal(second["hidden.weight"], initial["hidden.weight"])
    assert not torch.equal(third["hidden.weight"], initial["hidden.weight"])
    assert torch.equal(third["hidden.bias"], initial["hidden.bias"])


def test_what_is_frozen_and_thawed_trains_as_if_it_had_not_been_frozen() -> None:
    model = toy.ToyNet()
    twin = deepcopy(model)
    freezing, optimizer = frozen(model, freeze=BODY, unfreeze_at={"2": ["*"]})
    thawed = freezing.begin(2)
    assert {id(weight) for weight in thawed} == {id(w) for name, w in model.named_parameters() if name[:4] != "head"}
    other = torch.optim.SGD(twin.parameters(), 0.1)
    inputs = torch.randn(7, toy.NUM_FEATURES)
    for net, one in ((model, optimizer), (twin, other)):
        net.train()
        net(inputs).square().sum().backward()
        one.step()
    for name, value in twin.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


def test_batchnorm_of_a_frozen_part_stays_in_eval_mode_until_it_is_thawed() -> None:
    model = toy.ToyNet()
    freezing, _ = frozen(model, freeze=["norm.*"], unfreeze_at={"4": ["norm.*"]})
    for net in (model, deepcopy(model)):
        net.train()
        assert net.training
        assert not net.norm.training
    freezing.begin(4)
    model.train()
    assert model.norm.training


def test_a_norm_whose_weights_are_trained_in_part_is_not_held() -> None:
    model = toy.ToyNet()
    frozen(model, freeze=["norm.weight"])
    model.train()
    assert model.norm.training


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"freeze": ["hiden.*"]}, "fine_tune.freeze: no weight matches 'hiden.*'; did you mean 'hidden.*'?"),
        ({"freeze": ["hidden"]}, "fine_tune.freeze: no weight matches 'hidden'; did you mean 'hidden.*'?"),
        ({"freeze": ["*"]}, "fine_tune.freeze: nothing is left to train"),
        ({"unfreeze_at": {"2": ["head.*"]}}, "fine_tune.unfreeze_at.2: no frozen weight matches 'head.*'"),
        ({"freeze": BODY, "unfreeze_at": {"1": BODY}}, "fine_tune.unfreeze_at.1: give an epoch from 2 on"),
    ],
)
def test_a_pattern_that_does_nothing_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        frozen(toy.ToyNet(), **options)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("key", ["0", "first", "-1", "1.5"])
def test_an_epoch_that_is_none_is_refused(key: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"fine_tune.unfreeze_at"):
        parsed(small_config(tmp_path, fine_tune={"freeze": BODY, "unfreeze_at": {key: BODY}}))


def test_a_resumed_run_does_not_take_another_freezing(tmp_path: Path) -> None:
    config = small_config(tmp_path, fine_tune={"freeze": BODY})
    with stopped_at(3):
        train(config)
    [run_dir] = {path.parent for path in tmp_path.glob("*/*/latest.pth")}
    with pytest.raises(CheckpointError, match=r"fine_tune.freeze"):
        run("-r", str(run_dir), "--set", 'fine_tune.freeze=["hidden.*"]', "--allow-inexact")


def test_patterns_are_those_of_a_shell() -> None:
    names = ["conv1.weight", "layer1.0.weight", "layer2.0.weight", "layer10.weight", "fc.bias"]
    assert matching(names, ["layer[12].*", "conv1.*"], "here") == names[:3]


# Groups.


class Deep(nn.Module):
    """A stem, a body of three blocks that has most of the weights, a norm and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 4))
        self.stem = nn.Linear(4, 4)
        self.body = nn.Sequential(*(nn.Sequential(nn.Linear(4, 9), nn.LayerNorm(9), nn.Linear(9, 4)) for _ in range(3)))
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 2)


def test_layers_are_counted_from_the_input() -> None:
    model = Deep()
    depths = layer_depths(model)
    by_name = {name: depths[weight] for name, weight in model.named_parameters()}
    assert by_name["token"] == by_name["stem.weight"] == 0
    assert [by_name[f"body.{i}.1.weight"] for i in range(3)] == [1, 2, 3]
    assert by_name["norm.bias"] == 3
    assert by_name["head.bias"] == 4


def test_layer_decay_and_no_decay_divide_every_group() -> None:
    model = Deep()
    section = {"args": {"lr": 0.1, "weight_decay": 0.5}, "no_decay": True, "layer_decay": 0.5}
    optimizer = torch.optim.AdamW(param_groups(model, section), lr=0.1, weight_decay=0.5)
    rates: dict[str, Any] = {}
    names = {weight: name for name, weight in model.named_parameters()}
    for group in optimizer.param_groups:
        rates |= {names[weight]: (group["lr"], group["weight_decay"]) for weight in group["params"]}
    assert len(optimizer.param_groups) == 10
    assert rates.keys() == set(names.values())
    assert rates["head.weight"] == (0.1, 0.5)
    assert rates["head.bias"] == (0.1, 0.0)
    assert rates["body.2.0.weight"] == (0.05, 0.5)
    assert rates["token"] == (0.1 / 16, 0.5)
    assert rates["stem.bias"] == (0.1 / 16, 0.0)


def test_groups_by_pattern_are_divided_too() -> None:
    groups = [{"match": "stem.*", "lr": 0.01}, {"match": "body.*", "weight_decay": 0.3}]
    section = {"args": {"lr": 0.1, "params": groups}, "no_decay": True}
    divided = [
        {key: value for key, value in group.items() if key != "params"} for group in param_groups(Deep(), section)
    ]
    vectors = {"weight_decay": 0.0}
    assert divided == [{"lr": 0.01}, {"lr": 0.01, **vectors}, {"weight_decay": 0.3}, vectors, {}, vectors]


def test_layer_decay_needs_a_learning_rate() -> None:
    with pytest.raises(ConfigError, match=r"optimizer.args.lr: missing"):
        param_groups(Deep(), {"args": {}, "layer_decay": 0.5})


def test_the_table_says_what_trains_when() -> None:
    model = toy.ToyNet()
    freezing, optimizer = frozen(model, freeze=BODY, unfreeze_at={"3": ["norm.*"]})
    assert describe_groups(optimizer, model, freezing) == [
        "group  trained       parameters  lr   weight decay  weights",
        "0      frozen        40                             2: hidden.weight … hidden.bias",
        "0      from epoch 3  16          0.1  0             2: norm.weight … norm.bias",
        "0                    27          0.1  0             2: head.weight … head.bias",
    ]
    assert describe_groups(optimizer, model, frozen(toy.ToyNet())[0]) == []


# Weights to begin from.


@pytest.mark.parametrize("kind", ["plain", "nested", "safetensors", "checkpoint", "half"])
def test_weights_of_every_kind_are_taken(kind: str, tmp_path: Path) -> None:
    source = toy.ToyNet(num_classes=5)
    weights = {name: torch.rand_like(value) if value.ndim else value for name, value in source.state_dict().items()}
    path = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pth")
    if kind == "checkpoint":
        source_config = small_config(tmp_path / "first", arch={"type": "ToyNet", "args": {"width": 8}})
        path = train(source_config) / "latest.pth"
        weights = load_checkpoint(path)["model"]
    elif kind == "safetensors":
        save_file(weights, path)
    else:
        weights = {name: value.half() for name, value in weights.items()} if kind == "half" else weights
        torch.save({"epoch": 3, "state_dict": weights} if kind == "nested" else weights, path)
    config = small_config(tmp_path / "second", fine_tune={"pretrained": str(path), "freeze": BODY})
    run_dir = train(config)
    taken = newest(run_dir)["model"]
    for name in ("hidden.weight", "norm.running_var"):
        assert torch.equal(taken[name], weights[name].float()), name


def test_a_resumed_run_does_not_read_the_weights_again(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(toy.ToyNet().state_dict(), path)
    config = small_config(tmp_path / "run", fine_tune={"pretrained": str(path)})
    with stopped_at(3):
        train(config)
    path.unlink()
    [run_dir] = {path.parent for path in tmp_path.glob("run/*/*/latest.pth")}
    run("-r", str(run_dir))


def test_weights_that_are_none_are_refused_in_a_line(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"module": toy.ToyNet()}, tmp_path / "code.pth")
    (tmp_path / "text.pth").write_text("no zip")
    (tmp_path / "text.safetensors").write_text("no header")
    for name in ("list.pth", "code.pth", "text.pth", "text.safetensors", "absent.pth"):
        with pytest.raises(CheckpointError) as error:
            read_weights(tmp_path / name)
        assert str(error.value).startswith(f"{tmp_path / name}: ")
        assert "\n" not in str(error.value)
