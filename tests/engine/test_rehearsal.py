"""A rehearsal goes through everything that a run does, for any trainer, fails where that would, and leaves nothing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import toy
from faults import the_run
from helpers import newest, write_given
from toy import PlainTrainer, ToyTrainer
from toy_runs import run, small_config, train
from utils import ConfigError

pytestmark = pytest.mark.e2e  # whole runs

LOOPS = ["counted", "plain"]


def check(config: dict[str, Any], *args: str, trainer: toy.TrainerClass | None = None) -> list[str]:
    """Return the lines that --check prints."""
    with pytest.MonkeyPatch.context() as patch:
        printed: list[str] = []
        patch.setattr("builtins.print", lambda text: printed.append(text))
        toy.main(toy.parse_args(["-c", write_given(config), "--check", *args]), trainer)
    return [line for text in printed for line in text.splitlines()]


def written(directory: Path) -> list[str]:
    """Return what is below a directory, the given config aside."""
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.name != "given.json")


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("data", ["SampleLoader", "TensorLoader"])
def test_it_prints_data_shapes_parameters_time_and_memory_and_writes_nothing(
    loop: str, data: str, tmp_path: Path
) -> None:
    config = small_config(tmp_path / "saved", trainer__loop=loop, data_loader__type=data)
    data_line, batch, header, *layers, model, time, memory = check(config)
    assert data_line == "data: 28 training samples, 6 for validation"
    assert batch == "a batch: float32 [5, 4], int64 [5]"
    assert header.split() == ["layer", "type", "output", "parameters", "FLOPs"]
    assert len(layers) > 1
    assert model == "model: 83 trainable parameters"
    assert re.fullmatch(
        r"time on cpu: about [\d.]+ ms a step, validation included; 6 steps an epoch; \d+ s an epoch, \d+ s in all",
        time,
    )
    assert re.fullmatch(r"memory: \d+ MiB in this process", memory)
    assert written(tmp_path / "saved") == []


@pytest.mark.parametrize("loop", LOOPS)
def test_it_is_a_few_steps_whatever_the_size_of_the_data(loop: str, tmp_path: Path) -> None:
    steps: list[int] = []
    config = small_config(tmp_path / "saved", trainer__loop=loop, data_loader__args__num_samples=5000)

    def build(*args: Any, **kwargs: Any) -> Any:
        trainer = toy.TRAINERS[loop](*args, **kwargs)
        trainer.optimizer.register_step_post_hook(lambda *_: steps.append(1))
        return trainer

    check(config, trainer=build)
    assert 2 <= len(steps) <= 10
    before = len(steps)
    check(config, "--limit-batches", "3", trainer=build)
    assert len(steps) - before <= 5


@pytest.mark.parametrize("loop", LOOPS)
def test_with_accumulated_microbatches_steps_are_whole(loop: str, tmp_path: Path) -> None:
    config = small_config(tmp_path / "saved", trainer__loop=loop, trainer__grad_accum_steps=2)
    assert any("steps an epoch" in line for line in check(config))


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_a_limit_counts_steps_not_microbatches(limit: int, tmp_path: Path) -> None:
    config = small_config(tmp_path / "saved", trainer__grad_accum_steps=2, trainer__limit_batches=limit)
    whole = small_config(tmp_path / "whole", trainer__grad_accum_steps=2)
    limited, full = newest(train(config)), newest(train(whole))
    assert limited["position"]["global_step"] == 2 * limit
    assert full["position"]["global_step"] == 6
    if limit == 3:
        assert torch.equal(limited["model"]["head.bias"], full["model"]["head.bias"])


def test_what_a_loop_writes_into_the_run_directory_is_gone_too(tmp_path: Path) -> None:
    class Writing(PlainTrainer):
        def _train_epoch(self, epoch: int) -> dict[str, float]:
            (self.checkpoint_dir / "samples.txt").write_text("mine")
            return super()._train_epoch(epoch)

    check(small_config(tmp_path / "saved"), trainer=Writing)
    assert written(tmp_path / "saved") == []


@pytest.mark.parametrize("loop", LOOPS)
def test_a_rehearsal_of_a_resumed_run_leaves_that_alone(loop: str, tmp_path: Path) -> None:
    config = small_config(tmp_path / "saved", trainer__loop=loop)
    run_dir = train(config)
    before = {path: path.read_bytes() for path in run_dir.iterdir()}
    run("-r", str(run_dir), "--check")
    run("-c", write_given(config), "--resume-latest", "--check")
    assert {path: path.read_bytes() for path in run_dir.iterdir()} == before
    assert the_run(config) == run_dir


class Broken(Exception):
    """What is wrong in a trainer's own code."""


def breaking(method: str, base: type[Any]) -> type[Any]:
    """Return a trainer whose `method` breaks."""

    def broken(self: Any, *args: Any) -> Any:
        raise Broken(method)

    return type(f"Breaking{base.__name__}", (base,), {method: broken})


@pytest.mark.parametrize(
    ("base", "method"),
    [
        (ToyTrainer, "_train_step"),
        (ToyTrainer, "_valid_epoch"),
        (ToyTrainer, "_step_scheduler"),
        (PlainTrainer, "_train_epoch"),
        (PlainTrainer, "_valid_epoch"),
        (PlainTrainer, "_before_epoch"),
        (ToyTrainer, "_before_epoch"),
        (PlainTrainer, "_preflight"),
    ],
)
def test_it_fails_where_a_run_would(base: type[Any], method: str, tmp_path: Path) -> None:
    config = small_config(tmp_path / "saved")
    for attempt in (check, train):
        with pytest.raises(Broken, match=method):
            attempt(config, trainer=breaking(method, base))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metrics": [{"type": "top_k", "args": {"k": 50}}]}, "loss or metrics do not take what the model gives"),
        ({"loss": {"type": "CrossEntropyLoss", "args": {"weight": [1.0]}}}, "loss or metrics do not take"),
        ({"data_loader__args__validation_split": 0}, "trainer.monitor: no 'val_loss' in this run"),
        ({"data_loader__args__validation_split": 34}, "data_loader.args.validation_split: 34 of 34 samples"),
        ({"trainer__grad_checkpointing": ["hiden"]}, "no submodule 'hiden'; did you mean 'hidden'"),
        (
            {"lr_scheduler": {"type": "OneCycleLR", "interval": "step", "args": {"max_lr": 1.0, "total_steps": 3}}},
            "total_steps: 3, but the run makes 12",
        ),
    ],
    ids=str,
)
def test_a_config_that_a_run_refuses_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    config = small_config(tmp_path / "saved", **change)
    for attempt in (check, train):
        with pytest.raises(ConfigError, match=message):
            attempt(config)
    assert written(tmp_path / "saved") == []


@pytest.mark.parametrize("attempt", [train, check])
def test_a_monitor_that_a_plain_loop_never_gives_is_refused(attempt: Any, tmp_path: Path) -> None:
    config = small_config(tmp_path / "saved", trainer__loop="plain", data_loader__args__validation_split=0)
    with pytest.raises(ConfigError, match=r"^trainer.monitor: the epoch gave no 'val_loss'; it gave loss, accuracy$"):
        attempt(config)


def test_options_that_the_loop_ignores_are_warned_of_in_a_rehearsal_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    check(small_config(tmp_path / "saved", trainer__loop="plain", trainer__max_grad_norm=1.0))
    assert "trainer.max_grad_norm: 1.0 has no effect" in caplog.text
