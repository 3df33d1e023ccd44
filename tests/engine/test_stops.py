"""Runs that are killed, signalled, starved of disk or memory, or fed NaN: they end well, and go on to the bit."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from base import BaseDataLoader, BaseTrainer
from checkpoint.file import find_checkpoint, load_checkpoint
from checkpoint.writer import CheckpointWriter
from faults import (
    assert_same_run,
    finish,
    kill_until_done,
    signal_once,
    start,
    the_run,
    wait_until,
    whole_run,
    write_config,
)
from helpers import epochs_of, newest, records_of, status_of
from toy import PlainTrainer, ToyTrainer
from toy_runs import run, small_config, train
from utils import NonFiniteError, OutOfMemoryError, RunDirError, exit_on_user_error

pytestmark = pytest.mark.e2e  # whole runs

KINDS: dict[str, dict[str, Any]] = {
    "counted": {"trainer__save_every_steps": 2, "trainer__grad_accum_steps": 2},
    "plain": {"trainer__loop": "plain", "trainer__save_every_steps": 2},
    "with workers": {"trainer__loop": "plain", "trainer__save_every_steps": 2, "data_loader__args__num_workers": 2},
    "on tensors, a schedule per step": {
        "data_loader__type": "TensorLoader",
        "trainer__save_every_steps": 1,
        "lr_scheduler": {
            "type": "SequentialLR",
            "interval": "step",
            "args": {
                "schedulers": [{"type": "LinearLR"}, {"type": "LambdaLR", "args": {"lr_lambda": "0.99 ** step"}}],
                "milestones": [13],
            },
        },
    },
}


@pytest.mark.parametrize("kind", [pytest.param(k, marks=pytest.mark.slow) if "workers" in k else k for k in KINDS])
def test_a_run_that_is_killed_goes_on_to_the_bit(kind: str, tmp_path: Path) -> None:
    changes = KINDS[kind] | {"trainer__epochs": 5, "trainer__early_stop": None}
    if kind == "plain":
        changes |= {"trainer__tensorboard": False}  # see test_plain_loop.py: after the last step of an epoch
    expected = train(small_config(tmp_path / "whole", **changes))
    config = small_config(tmp_path / "killed", **changes)
    kill_until_done(config, random.Random(kind), max_kills=3, script="toy")
    if kind == "with workers":
        assert records_of(expected) == records_of(the_run(config))
    else:
        assert_same_run(expected, the_run(config))
    assert status_of(the_run(config))["status"] == "completed"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", range(4))
def test_soak_of_kills(kind: str, number: int, tmp_path: Path) -> None:
    changes = KINDS[kind] | {"trainer__epochs": 100, "trainer__early_stop": None, "trainer__keep_checkpoints": 2}
    expected = whole_run(small_config(tmp_path / "whole", **changes, trainer__tensorboard=False), script="toy")
    config = small_config(tmp_path / "killed", **changes, trainer__tensorboard=False)
    kill_until_done(config, random.Random(f"{kind} {number}"), max_kills=25, script="toy")
    assert_same_run(expected, the_run(config))


# Signals.

PLACES: dict[str, tuple[type, str]] = {
    "step": (ToyTrainer, "_train_step"),
    "validation": (ToyTrainer, "_valid_epoch"),
    "save": (CheckpointWriter, "_write"),
    "loader": (BaseDataLoader, "_pass"),
    "finish": (BaseTrainer, "_finish_epoch"),
}
CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGUSR1: 75}


@pytest.mark.parametrize(
    ("place", "number", "at"),
    [
        ("step", signal.SIGTERM, 1),
        ("step", signal.SIGINT, 5),
        ("step", signal.SIGUSR1, 9),
        ("validation", signal.SIGTERM, 0),
        ("save", signal.SIGINT, 0),
        ("save", signal.SIGUSR1, 1),
        ("loader", signal.SIGINT, 1),
        ("finish", signal.SIGTERM, 0),
    ],
)
def test_a_signal_stops_well_wherever_it_comes(place: str, number: signal.Signals, at: int, tmp_path: Path) -> None:
    expected, config = train(small_config(tmp_path / "whole")), small_config(tmp_path / "stopped")
    with pytest.MonkeyPatch.context() as patch:
        signal_once(*PLACES[place], number, at, patch.setattr)
        with pytest.raises(SystemExit) as caught, exit_on_user_error():
            train(config)
    assert caught.value.code == CODES[number]
    status = status_of(the_run(config))
    assert (status["status"], status["signal"]) == ("preempted", number.name)
    run("-r", str(the_run(config)))
    assert_same_run(expected, the_run(config))


def test_handlers_are_put_back_after_a_run(tmp_path: Path) -> None:
    numbers = [*CODES, signal.SIGCHLD, signal.SIGHUP]
    train(small_config(tmp_path / "run"))  # torch installs its handler once
    before = {number: signal.getsignal(number) for number in numbers}
    train(small_config(tmp_path / "run", data_loader__args__num_workers=1))
    assert {number: signal.getsignal(number) for number in numbers} == before


@pytest.mark.parametrize("num_kills", [3, pytest.param(50, marks=pytest.mark.slow)])
@pytest.mark.parametrize("loop", ["counted", "plain"])
def test_a_kill_during_a_save_loses_at_most_the_save_under_way(loop: str, num_kills: int, tmp_path: Path) -> None:
    """Saves come back to back here: one every step, of a model that is large enough for kills to hit a write."""
    config = small_config(tmp_path / "run", trainer__epochs=100_000, trainer__save_every_steps=1, trainer__loop=loop)
    config["trainer"] |= {"early_stop": None, "keep_checkpoints": 1, "tensorboard": False}
    config["arch"]["args"]["width"] = 20_000
    args = ("-c", write_config(config), "--resume-latest")
    generator, before = random.Random(0), 0
    for _ in range(num_kills):
        process = start(*args, script="toy")
        wait_until(lambda: list(tmp_path.glob("run/*/*/previous.pth")))
        process.join(generator.uniform(0.3, 0.6))
        process.kill()
        process.join()
        saved = load_checkpoint(find_checkpoint(the_run(config)))["position"]["global_step"]
        logged = [json.loads(line) for line in (the_run(config) / "metrics.jsonl").read_text().split("\n")[:-1]]
        assert saved >= before
        if loop == "counted":
            assert logged[-1]["global_step"] - 2 <= saved <= logged[-1]["global_step"]
        before = saved


def test_a_second_process_on_a_run_is_refused_with_who_has_it(tmp_path: Path) -> None:
    config = small_config(tmp_path / "run", trainer__epochs=100_000, trainer__early_stop=None)
    first = start("-c", write_config(config), script="toy")
    wait_until(lambda: list(tmp_path.glob("run/*/*/checkpoint-epoch1.pth")))
    for args in (("-r", str(the_run(config))), ("-c", write_config(config), "--resume-latest")):
        with pytest.raises(RunDirError, match=f"in use by pid {first.pid} on {socket.gethostname()}"):
            run(*args)
    first.kill()
    first.join()
    run("-r", str(the_run(config)), "--set", "trainer.epochs=1")


# Disks.


def limit_file_size_at_step(step: int, num_bytes: int) -> None:
    """Let every write beyond `num_bytes` of a file fail from `step` on, as on a full disk (EFBIG for ENOSPC)."""
    import resource

    save_if_due = BaseTrainer._save_if_due

    def limiting(trainer: BaseTrainer) -> None:
        if trainer.position.global_step == step:
            resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes))
        save_if_due(trainer)

    BaseTrainer._save_if_due = limiting  # type: ignore[method-assign, assignment]


@pytest.mark.parametrize("loop", ["counted", "plain"])
def test_a_full_disk_is_reported_and_leaves_the_earlier_checkpoint_whole(loop: str, tmp_path: Path) -> None:
    changes = {"trainer__tensorboard": False, "trainer__save_every_steps": 2, "trainer__loop": loop}
    expected = train(small_config(tmp_path / "whole", **changes))
    size = (expected / "latest.pth").stat().st_size
    for index, step in enumerate((2, 5, 10)):
        config = small_config(tmp_path / f"run{index}", **changes)
        stderr = tmp_path / f"stderr{index}"
        setup = partial(limit_file_size_at_step, step, 3000 + index * (size - 3000) // 4)
        assert finish("-c", write_config(config), script="toy", setup=setup, stderr=stderr) == 6
        assert stderr.read_text().count("\n") == 1
        assert "cannot be written to: File too large" in stderr.read_text()
        run_dir = the_run(config)
        load_checkpoint(find_checkpoint(run_dir))
        assert status_of(run_dir)["status"] in ("failed", "running")  # that may be what could not be written
        run("-r", str(run_dir))
        assert_same_run(expected, run_dir)
        assert not list(run_dir.glob(".*.tmp"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Yield a disk of 1 MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)], check=False).returncode != 0:
        pytest.skip("mounting a tmpfs needs root")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_disk_that_fills_up_is_reported_and_the_run_goes_on_when_there_is_room(
    small_disk: Path, tmp_path: Path
) -> None:
    changes = {"trainer__epochs": 12, "trainer__early_stop": None, "arch__args__width": 1500}
    expected = train(small_config(tmp_path / "whole", **changes))
    config = small_config(small_disk / "saved", **changes)
    with pytest.raises(RunDirError, match="cannot be written to: No space left on device"):
        train(config)
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    run("-r", str(the_run(config)))
    assert_same_run(expected, the_run(config))


def test_a_disk_that_cannot_be_written_is_reported_before_training(small_disk: Path) -> None:
    config = small_config(small_disk / "saved")
    path = write_config(config)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(RunDirError, match="cannot be written to: Read-only file system"):
        run("-c", path)
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    (small_disk / "ballast").write_bytes(bytes(1024 * 1000))
    with pytest.raises(RunDirError, match="cannot be written to: No space left on device"):
        run("-c", path)
    assert [metrics.read_text() for metrics in small_disk.glob("saved/*/*/metrics.jsonl")] in ([], [""])


def fill_disk_when_stopping() -> None:
    """Let this process be stopped in its second epoch, with every write failing from then on."""
    import resource

    validate = ToyTrainer._valid_epoch

    def stopping(trainer: ToyTrainer, epoch: int) -> dict[str, float]:
        if epoch == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
            os.kill(os.getpid(), signal.SIGTERM)
        return validate(trainer, epoch)

    ToyTrainer._valid_epoch = stopping  # type: ignore[method-assign, assignment]


def test_a_stop_that_cannot_be_saved_is_reported_as_that(tmp_path: Path) -> None:
    config, stderr = small_config(tmp_path / "run", trainer__tensorboard=False), tmp_path / "stderr"
    args = ("-c", write_config(config))
    assert finish(*args, script="toy", setup=fill_disk_when_stopping, stderr=stderr) == 6
    assert "File too large" in stderr.read_text()
    assert status_of(the_run(config))["status"] == "failed"


# What goes wrong in a step.


@pytest.mark.parametrize("trainer", [ToyTrainer, PlainTrainer])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_never_saved(trainer: Any, value: float, tmp_path: Path) -> None:
    def build(*args: Any, **kwargs: Any) -> Any:
        built = trainer(*args, **kwargs)
        built.optimizer.register_step_post_hook(lambda *_: spoil(built))
        return built

    def spoil(built: Any) -> None:
        if built.position.global_step == 4:
            built.model.hidden.weight.data[0, 0] = value

    changes = {"trainer__save_every_steps": 3, "trainer__tensorboard": False}
    config = small_config(tmp_path / "run", **changes)
    with pytest.raises(NonFiniteError, match=r"hidden.weight is not finite any more; not saved"):
        train(config, trainer=build)
    run_dir = the_run(config)
    assert status_of(run_dir)["status"] == "failed"
    for path in run_dir.glob("*.pth"):
        content = load_checkpoint(path)
        assert content["position"]["global_step"] <= 3
        assert all(weight.isfinite().all() for weight in content["model"].values())
    whole = train(small_config(tmp_path / "whole", **changes), trainer=trainer)
    run("-r", str(run_dir), trainer=trainer)
    assert_same_run(whole, run_dir)


def test_memory_that_runs_out_is_reported_with_what_to_try(tmp_path: Path) -> None:
    class Hungry(PlainTrainer):
        def _train_epoch(self, epoch: int) -> dict[str, float]:
            raise torch.OutOfMemoryError("tried to allocate 20 GiB")

    message = r"out of memory on cpu: batch_size 5: tried to allocate 20 GiB\ntry --bs 2 .* or trainer.precision bf16"
    with pytest.raises(OutOfMemoryError, match=message):
        train(small_config(tmp_path / "run"), trainer=Hungry)


def test_an_error_of_ones_own_keeps_its_traceback_and_is_in_the_status(tmp_path: Path) -> None:
    class Broken(PlainTrainer):
        def _valid_epoch(self, epoch: int) -> dict[str, float]:
            raise ZeroDivisionError("mine")

    config = small_config(tmp_path / "run")
    with pytest.raises(ZeroDivisionError):
        train(config, trainer=Broken)
    assert status_of(the_run(config))["error"] == "ZeroDivisionError: mine"
    assert newest(the_run(config))["position"]["global_step"] == 0


def test_nan_in_validation_is_reported_and_never_the_best(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Spoiled(ToyTrainer):
        def _valid_epoch(self, epoch: int) -> dict[str, float]:
            return super()._valid_epoch(epoch) | ({"val_loss": float("nan")} if epoch == 1 else {})

    config = small_config(tmp_path / "run")
    train(config, trainer=Spoiled)
    assert load_checkpoint(the_run(config) / "model_best.pth")["epoch"] == 2
    assert "epoch 1: val_loss is nan; that is never the best" in caplog.text
    assert [record["val_loss"] is None for record in epochs_of(the_run(config))] == [True, False]


@pytest.mark.parametrize("loop", ["counted", "plain"])
def test_the_number_of_workers_does_not_change_a_run(loop: str, tmp_path: Path) -> None:
    changes = {"trainer__loop": loop, "trainer__epochs": 1}
    alone = train(small_config(tmp_path / "0", **changes))
    assert_same_run(alone, train(small_config(tmp_path / "2", **changes, data_loader__args__num_workers=2)))


def test_a_stop_in_a_rehearsal_is_an_ordinary_interrupt(tmp_path: Path) -> None:
    class Interrupted(PlainTrainer):
        def _train_epoch(self, epoch: int) -> dict[str, float]:
            raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught, exit_on_user_error():
        train(small_config(tmp_path / "run"), "--check", trainer=Interrupted)
    assert caught.value.code == 130
