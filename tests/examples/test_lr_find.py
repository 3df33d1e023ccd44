"""The learning-rate test makes real steps, puts everything back, and says where the loss falls most steeply."""

from __future__ import annotations

import json
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

import train as train_script
from example_runs import run_train, train
from helpers import assert_equal, write_given
from parse_config import ConfigParser
from preflight.lr_find import HIGH, LOW, NUM_STEPS, find_lr
from utils import ConfigError, rng_state


def parsed(config: dict[str, Any], *args: str) -> ConfigParser:
    return train_script.parse_args(["-c", write_given(config), "--lr-find", *args])


def values(config: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder(config) / "lr_find.json").read_text())
    return content


def folder(config: dict[str, Any]) -> Path:
    return Path(config["trainer"]["save_dir"]) / config["name"]


def test_it_prints_a_plot_and_a_suggestion_and_writes_no_run(
    config: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    train_script.main(parsed(config))
    found = values(config)
    out = capsys.readouterr().out
    assert f"suggestion: lr {found['suggestion']:.2g}, where the smoothed loss falls most steeply" in out
    assert f"--set optimizer.args.lr={found['suggestion']:.2g}" in out
    assert len(found["lr"]) == len(found["loss"]) == len(found["smoothed_loss"]) <= NUM_STEPS
    assert found["lr"][0] == LOW
    assert found["lr"][-1] <= HIGH * 1.001
    lowest = found["lr"][found["smoothed_loss"].index(min(found["smoothed_loss"]))]
    assert LOW < found["suggestion"] < lowest
    assert sorted(path.name for path in folder(config).iterdir()) == ["lr_find.json", "lr_find.png"]


def test_everything_is_as_before_afterwards(config: dict[str, Any]) -> None:
    trainer = train_script.build_trainer(parsed(config, "--set", "trainer.ema_decay=0.9"))
    before = deepcopy({name: part.state_dict() for name, part in trainer._stateful().items()})
    random_state = rng_state(trainer.device)
    find_lr(trainer)
    assert_equal({name: part.state_dict() for name, part in trainer._stateful().items()}, before)
    assert_equal(rng_state(trainer.device), random_state)
    assert all(parameter.grad is None for parameter in trainer.model.parameters())


def test_the_steps_are_those_of_the_run(config: dict[str, Any]) -> None:
    """Accumulated microbatches give the losses of one large batch; each parameter group keeps its proportion."""
    config["arch"]["args"]["dropout"] = 0.0
    train_script.main(parsed(config, "--set", "trainer.max_grad_norm=0.1"))
    whole = values(config)["loss"]
    config["data_loader"]["args"]["batch_size"] //= 2
    train_script.main(parsed(config, "--set", "trainer.max_grad_norm=0.1", "--set", "trainer.grad_accum_steps=2"))
    assert values(config)["loss"][:20] == pytest.approx(whole[:20], rel=1e-4)


def test_it_ends_where_the_loss_diverges(config: dict[str, Any]) -> None:
    config["optimizer"] = {"type": "SGD", "args": {"lr": 0.1, "momentum": 0.9}}
    train_script.main(parsed(config))
    assert len(values(config)["lr"]) < NUM_STEPS


def test_without_matplotlib_there_is_no_picture(
    config: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    train_script.main(parsed(config))
    assert "for a picture: pip install matplotlib" in capsys.readouterr().out
    assert [path.name for path in folder(config).iterdir()] == ["lr_find.json"]


def test_it_starts_from_the_weights_that_a_run_would_start_from_and_is_not_for_a_resumed_one(
    config: dict[str, Any],
) -> None:
    run_dir = train(config)
    train_script.main(parsed(config))
    fresh = values(config)["loss"]
    train_script.main(parsed(config, "-r", str(run_dir)))
    assert values(config)["loss"][0] < fresh[0]
    with pytest.raises(ConfigError, match="--lr-find: is for a new run"):
        run_train("-r", str(run_dir), "--lr-find")
