"""Sweeps: mistakes in a space are reported before anything starts; every trial has one result, whatever is killed."""

from __future__ import annotations

import json
import os
import random
import re
import signal
from collections import Counter
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from plotly.offline import get_plotlyjs

pytest.importorskip("optuna")

import sweep
import toy
from faults import exit_code, finish, start, wait_until, write_config
from helpers import epochs_of, status_of
from history.alive import is_held
from sweeps.space import read_space
from sweeps.study import open_study
from toy_runs import small_config, train
from utils import ConfigError

SPACE: dict[str, Any] = {
    "optimizer.args.lr": {"low": 1e-4, "high": 0.1, "log": True},
    "arch.args.dropout": [0.0, 0.2],
}


def write_space(tmp_path: Path, space: Any = SPACE) -> str:
    path = tmp_path / "space.json"
    path.write_text(json.dumps(space))
    return str(path)


def command(tmp_path: Path, config: dict[str, Any], space: Any, *others: str) -> list[str]:
    return ["-c", write_config(config), "--space", write_space(tmp_path, space), *others]


# The space.


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"optimizer.args.lrr": [0.1]}, "optimizer.args.lrr: unknown argument of Adam; did you mean 'lr'?"),
        ({"optimiser.args.lr": [0.1]}, "optimiser: unknown key; did you mean 'optimizer'?"),
        ({"optimizer.args.lr": {"low": 0.1, "high": 0.01}}, "optimizer.args.lr: low 0.1 is above high 0.01"),
        ({"optimizer.args.lr": {"low": 0, "high": 0.01, "log": True}}, "low: 0 has no logarithm"),
        (
            {"optimizer.args.lr": {"low": -0.1, "high": 0.01}},
            "optimizer.args: Adam refuses them: Invalid learning rate",
        ),
        ({"optimizer.args.lr": {"low": 0.1}}, "optimizer.args.lr: high: missing"),
        ({"optimizer.args.lr": {"low": 0.1, "hi": 1}}, "optimizer.args.lr: hi: unknown key; did you mean 'high'?"),
        ({"optimizer.args.lr": {"low": 0.1, "high": 1, "step": 0}}, "step: give one above 0; got 0"),
        ({"optimizer.args.lr": {"low": "a", "high": 1}}, "optimizer.args.lr: low: give a number; got 'a'"),
        ({"optimizer.args.lr": {"low": 1, "high": 2, "choices": [1]}}, "give either choices or a range"),
        ({"optimizer.args.lr": []}, "choices: give a list of at least one value"),
        ({"optimizer.args.lr": [0.1, 0.1]}, "choices: 0.1 appears twice"),
        ({"optimizer.args.lr": 0.1}, "give a list of values, or an object of low and high, or of choices"),
        ({"trainer.epochs": {"low": 0, "high": 3}}, "trainer.epochs: Input should be greater than"),
        ({"data_loader.args.batch_size": [4, "many"]}, "data_loader.args.batch_size: .*'many'"),
        ({"optimizer.type": ["Adam", "Adma"]}, "optimizer.type: unknown type 'Adma'; did you mean 'Adam'?"),
        ({"seed": [0, 1]}, "seed: cannot be swept: give --seeds N"),
        ({"name": ["a", "b"]}, "name: cannot be swept"),
        ({}, "names no key"),
    ],
)
def test_a_mistake_in_a_space_is_reported_before_anything_starts(space: Any, message: str, tmp_path: Path) -> None:
    args = command(tmp_path, small_config(tmp_path / "saved"), space, "-n", "3")
    pattern = message if ".*" in message else re.escape(message)
    with pytest.raises(ConfigError, match=f"^{re.escape(str(tmp_path / 'space.json'))}: .*{pattern}"):
        sweep.main(args, slots=toy.SLOTS)
    assert not (tmp_path / "saved").exists()


def test_all_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    space = {"optimizer.args.lrr": [0.1], "trainer.epoch": [1, 2]}
    with pytest.raises(ConfigError) as caught:
        sweep.main(command(tmp_path, small_config(tmp_path / "saved"), space, "-n", "3"), slots=toy.SLOTS)
    assert [problem.split(": ")[1] for problem in caught.value.problems] == ["optimizer.args.lrr", "trainer.epoch"]


@pytest.mark.parametrize(
    ("changes", "others", "message"),
    [
        (
            {"trainer__monitor": "off", "trainer__early_stop": None},
            ["-n", "3"],
            "trainer.monitor: is off; a sweep needs",
        ),
        ({}, [], "-n: missing"),
        ({}, ["--sampler", "grid"], "optimizer.args.lr: a grid needs a list of values"),
    ],
)
def test_a_sweep_without_an_aim_or_an_end_is_refused(
    changes: dict[str, Any], others: list[str], message: str, tmp_path: Path
) -> None:
    config = small_config(tmp_path / "saved", **changes)
    with pytest.raises(ConfigError, match=message):
        sweep.main(command(tmp_path, config, SPACE, *others), slots=toy.SLOTS)
    assert not (tmp_path / "saved").exists()


def test_a_type_and_the_arguments_of_some_types_can_vary_together(tmp_path: Path) -> None:
    from sweeps.space import check_space

    space = read_space(
        Path(write_space(tmp_path, {"optimizer.type": ["Adam", "SGD"], "optimizer.args.momentum": [0.9]}))
    )
    config = small_config(tmp_path)
    check_space(space, config, toy.SLOTS, Path("space.json"))
    with pytest.raises(ConfigError, match=r"optimizer\.args\.momentum: unknown argument of Adam"):
        check_space(space[1:], config, toy.SLOTS, Path("space.json"))


# Trials.


def directory_of(config: dict[str, Any]) -> Path:
    return Path(config["trainer"]["save_dir"]) / "toy-space"


def trials_of(config: dict[str, Any]) -> list[Any]:
    return open_study(directory_of(config), "minimize").get_trials(deepcopy=False)


def best_of(run_dir: Path) -> float:
    return min(float(record["val_loss"]) for record in epochs_of(run_dir))


def assert_best_alone_is_the_same(config: dict[str, Any], seeds: list[int]) -> None:
    """Train best.json by itself with every seed, and compare to the bit."""
    best = min(trials_of(config), key=lambda trial: trial.value if trial.value is not None else float("inf"))
    content = json.loads((directory_of(config) / "best.json").read_text())
    assert content["name"] == "toy"
    for index, seed in enumerate(seeds):
        alone = json.loads(json.dumps(content))
        alone["trainer"]["save_dir"] = config["trainer"]["save_dir"] + f"-alone{seed}"
        run_dir = train(alone, "--set", f"seed={seed}")
        assert epochs_of(run_dir) == epochs_of(directory_of(config) / f"{best.number:03d}-seed{seed}")
        assert best_of(run_dir) == best.user_attrs["seed_values"][index]


def test_a_grid_with_a_point_that_fails(tmp_path: Path) -> None:
    """Weights of 1e38 overflow: that trial ends, not the sweep."""
    config = small_config(tmp_path / "saved", trainer__tensorboard=False)
    others = ["--sampler", "grid", "--seeds", "2", "--name", "space"]
    args = command(tmp_path, config, {"optimizer.args.lr": [0.01, 1e38, 0.03]}, *others)
    assert finish(*args, script="toy_sweep", stderr=tmp_path / "stderr") == 0
    trials = trials_of(config)
    states = {trial.params["optimizer.args.lr"]: trial.state.name for trial in trials}
    assert states == {0.01: "COMPLETE", 1e38: "FAIL", 0.03: "COMPLETE"}
    for trial in trials:
        if trial.state.name == "COMPLETE":
            values = [best_of(directory_of(config) / f"{trial.number:03d}-seed{seed}") for seed in (0, 1)]
            assert trial.value == fmean(values)
        else:
            assert "finite" in trial.user_attrs["error"]
    assert_best_alone_is_the_same(config, [0, 1])
    changed = command(tmp_path, config, {"optimizer.args.lr": [0.01, 0.05]}, "--sampler", "grid", "--seeds", "2")
    with pytest.raises(
        ConfigError,
        match=r"toy-space: started differently: space\[0\].choices: was .*; give this sweep a --name of its own",
    ):
        sweep.main(changed, slots=toy.SLOTS)


@pytest.mark.slow
def test_a_bad_trial_is_pruned_and_its_run_says_so(tmp_path: Path) -> None:
    config = small_config(tmp_path / "saved", trainer__tensorboard=False, trainer__epochs=60, trainer__early_stop=None)
    args = command(tmp_path, config, SPACE, "-n", "12", "--pruner", "hyperband", "--sampler", "random")
    assert finish(*args, script="toy_sweep") == 0
    trials = trials_of(config)
    pruned = [trial for trial in trials if trial.state.name == "PRUNED"]
    assert pruned
    assert len(trials) == 12
    for trial in trials:
        run_dir = directory_of(config) / f"{trial.number:03d}-seed0"
        assert status_of(run_dir)["status"] == ("pruned" if trial in pruned else "completed")
        epochs = {record["epoch"]: record["val_loss"] for record in epochs_of(run_dir)}
        assert trial.intermediate_values.items() <= epochs.items()
        assert (len(epochs) < 60) == (trial in pruned)
    sweep.main(command(tmp_path, config, SPACE, "--report"), slots=toy.SLOTS)
    page = (directory_of(config) / "report.html").read_text()
    for title in ("Trials", "All keys of each trial", "Each key by itself", "Which keys matter"):
        assert f"<h2>{title}</h2>" in page
    own = page.replace(get_plotlyjs(), "")  # whose links are only followed by a click
    assert len(own) < len(page)
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", own)  # it loads nothing from elsewhere


def has_begun(config: dict[str, Any], number: int) -> bool:
    """Whether the second run of more than so many trials has begun."""
    return len(list(directory_of(config).glob("*-seed1"))) > number


def kill_all(sweeps: list[Any], config: dict[str, Any], generator: random.Random) -> None:
    """Kill the sweeps, and at random their runs: those that are not killed notice, save and end."""
    runs = [path for path in directory_of(config).glob("*-seed*") if is_held(path)]
    pids = [status_of(path)["pid"] for path in runs if (path / "status.json").exists()]
    victims = [sweep.pid for sweep in sweeps if sweep.is_alive()] + [pid for pid in pids if generator.random() < 0.5]
    generator.shuffle(victims)
    for pid in victims:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    for process in sweeps:
        assert exit_code(process) in (0, -signal.SIGKILL)


@pytest.mark.slow
def test_thirty_trials_killed_three_times_and_shared_by_two_processes(tmp_path: Path) -> None:
    config = small_config(
        tmp_path / "saved", trainer__tensorboard=False, trainer__epochs=4, trainer__save_every_steps=1
    )
    args = command(tmp_path, config, SPACE, "-n", "30", "--seeds", "2")
    generator = random.Random(13)
    for round_number in range(1, 4):
        sweeps = [start(*args, script="toy_sweep") for _ in range(2)]
        wait_until(partial(has_begun, config, 6 * round_number), 200)
        wait_until(lambda: generator.random() < 0.01)
        kill_all(sweeps, config, generator)
    sweeps = [start(*args, script="toy_sweep") for _ in range(2)]
    assert [exit_code(process) for process in sweeps] == [0, 0]

    trials = trials_of(config)
    assert [(trial.number, trial.state.name) for trial in trials] == [(number, "COMPLETE") for number in range(30)]
    runs = sorted(path.name for path in directory_of(config).glob("[0-9]*"))
    assert runs == sorted(f"{number:03d}-seed{seed}" for number in range(30) for seed in (0, 1))
    for trial in trials:
        dirs = [directory_of(config) / f"{trial.number:03d}-seed{seed}" for seed in (0, 1)]
        assert trial.value == fmean(best_of(run_dir) for run_dir in dirs)
        assert [record["epoch"] for record in epochs_of(dirs[0])] == [1, 2, 3, 4]
    logs = [json.loads(line) for line in (directory_of(config) / "journal.log").read_text().splitlines()]
    results = Counter(log["trial_id"] for log in logs if log.get("values") is not None)
    assert results == dict.fromkeys(range(30), 1)
    resumed = [path for path in directory_of(config).glob("*-seed*") if "resumed" in (path / "info.log").read_text()]
    assert resumed, "no kill hit a run"
    assert_best_alone_is_the_same(config, [0, 1])
