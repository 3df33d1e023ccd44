"""Runs that are killed, signalled, starved of disk or fed NaN: they end well, and go on to the bit.

What is slow here without being long has a fast test of the same name, on the toy, in tests/engine/test_stops.py.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from base import BaseDataLoader
from checkpoint.file import find_checkpoint, load_checkpoint
from checkpoint.writer import CheckpointWriter
from example_runs import run_train, train
from faults import (
    assert_same_run,
    exit_code,
    finish,
    kill_until_done,
    signal_once,
    small_config,
    start,
    the_run,
    wait_until,
    whole_run,
    with_changes,
    write_config,
)
from few_digits import on_few_digits
from helpers import epochs_of, newest, records_of, status_of
from trainer import BatchResult, Trainer, run_batch
from utils import CheckpointError, NonFiniteError, OutOfMemoryError, RunDirError, Stopped, exit_on_user_error

KINDS: dict[str, dict[str, Any]] = {
    "no workers": {},
    "two workers": {"data_loader__args__num_workers": 2},
    "step schedule, bf16": {
        "lr_scheduler": {"type": "LambdaLR", "interval": "step", "args": {"lr_lambda": "0.99 ** step"}},
        "trainer__precision": "bf16",
    },
    "fp16": {"trainer__precision": "fp16", "trainer__len_epoch": 1},
    "torchmetrics, no accumulation": {
        "metrics": ["accuracy", {"type": "MulticlassF1Score", "args": {"num_classes": 10}}],
        "trainer__grad_accum_steps": 1,
    },
}
MakeConfig = Callable[..., dict[str, Any]]
RunOnce = Callable[..., Path]


def marked(cases: Iterable[Any], fast: Sequence[Any]) -> list[Any]:
    """Return the parameters of a test, those that are not `fast` marked as slow."""
    return [
        pytest.param(
            case,
            marks=[] if case in fast else [pytest.mark.slow],
        )
        for case in cases
    ]


@pytest.fixture(scope="session")
def make_config(digits_dir: Path) -> MakeConfig:
    """Return a function that makes a config from its save_dir and changes: 3 epochs of 3 steps of 3 microbatches."""

    def make(save_dir: Path, **changes: Any) -> dict[str, Any]:
        return with_changes(on_few_digits(small_config(save_dir), digits_dir), **changes)

    return make


@pytest.fixture(scope="session")
def whole(make_config: MakeConfig, tmp_path_factory: pytest.TempPathFactory) -> RunOnce:
    """Return a function that trains with changes, without any fault, and returns the run; the same changes once."""
    runs: dict[str, Path] = {}

    def run(**changes: Any) -> Path:
        key = json.dumps(changes)
        if key not in runs:
            runs[key] = whole_run(make_config(tmp_path_factory.mktemp("whole") / "run", **changes))
        return runs[key]

    return run


KILLED = [("step", kind) for kind in KINDS] + [("save", kind) for kind in KINDS]


@pytest.mark.parametrize("case", marked(KILLED, fast=[KILLED[0], KILLED[len(KINDS)]]), ids="-".join)
def test_a_run_that_is_killed_goes_on_to_the_bit(
    case: tuple[str, str], make_config: MakeConfig, whole: RunOnce, tmp_path: Path
) -> None:
    place, kind = case
    expected = whole(**KINDS[kind])
    config = make_config(tmp_path / "killed", **KINDS[kind])
    args = ("-c", write_config(config), "--resume-latest")
    half = newest(expected)["position"]["global_step"] // 2
    owner, method, skip = (Trainer, "_train_step", half) if place == "step" else (CheckpointWriter, "_write", 3)
    assert finish(*args, setup=partial(signal_once, owner, method, signal.SIGKILL, skip)) == -signal.SIGKILL
    assert finish(*args) == 0
    assert_same_run(expected, the_run(config))
    assert status_of(the_run(config))["status"] == "completed"


@pytest.mark.parametrize("kind", marked(KINDS, fast=["no workers"]))
def test_a_run_that_is_killed_at_any_time_goes_on_to_the_bit(
    kind: str, make_config: MakeConfig, whole: RunOnce, tmp_path: Path
) -> None:
    config = make_config(tmp_path / "killed", **KINDS[kind])
    kill_until_done(config, random.Random(kind), max_kills=2)
    assert_same_run(whole(**KINDS[kind]), the_run(config))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("run", range(int(os.environ.get("SOAK_RUNS", "11"))))
def test_soak_of_kills(kind: str, run: int, make_config: MakeConfig, whole: RunOnce, tmp_path: Path) -> None:
    """55 runs of up to 25 kills each, some of which end before: a thousand kills."""
    changes = KINDS[kind] | {"trainer__epochs": 80, "trainer__keep_checkpoints": 2, "trainer__early_stop": None}
    config = make_config(tmp_path / "killed", **changes)
    num_kills = kill_until_done(config, random.Random(f"{kind} {run}"), max_kills=25)
    with open(os.environ.get("SOAK_LOG", os.devnull), "a") as file:
        file.write(f"{kind}, run {run}: {num_kills} kills\n")
    assert_same_run(whole(**changes), the_run(config))


EVERY_STEP = ["no workers", "step schedule, bf16", "fp16"]


@pytest.mark.parametrize("kind", marked(EVERY_STEP, fast=EVERY_STEP[:1]))
def test_a_stop_at_every_single_step_is_exact(
    kind: str, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = KINDS[kind] | {"trainer__epochs": 2, "trainer__len_epoch": None}
    expected = train(make_config(tmp_path / "whole", **changes))
    after_step = Trainer._after_step
    num_steps = newest(expected)["position"]["global_step"]
    assert num_steps == 2 * 3
    for step in range(1, num_steps + 1):
        config = make_config(tmp_path / f"stopped{step}", **changes)

        def signal_at_step(trainer: Trainer, at: int = step) -> None:
            if trainer.position.global_step + 1 == at:
                os.kill(os.getpid(), signal.SIGTERM)
            after_step(trainer)

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "_after_step", signal_at_step)
            with pytest.raises(Stopped):
                train(config)
        assert newest(the_run(config))["position"]["global_step"] == step
        run_train("-r", str(the_run(config)))
        assert_same_run(expected, the_run(config))


PLACES = {
    "train": (Trainer, "_train_step"),
    "validation": (Trainer, "_valid_epoch"),
    "save": (CheckpointWriter, "_write"),
    "loader start": (BaseDataLoader, "_pass"),
}
CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGUSR1: 75}
SIGNALS = [(place, skip, number) for place in PLACES for skip, number in enumerate([*CODES, *CODES][:5])]
FAST = [  # the other places are the engine's: see tests/engine/test_stops.py
    ("train", 3, signal.SIGTERM),
    ("validation", 1, signal.SIGINT),
]


@pytest.mark.parametrize("case", marked(SIGNALS, FAST), ids="{0[0]}-{0[1]}-{0[2].name}".format)
def test_signals_stop_well_wherever_they_come(
    case: tuple[str, int, signal.Signals], make_config: MakeConfig, whole: RunOnce, tmp_path: Path
) -> None:
    place, skip, number = case
    config = make_config(tmp_path / "run", data_loader__args__num_workers=int(place == "loader start"))
    setup = partial(signal_once, *PLACES[place], number, 2 * skip if place == "train" else min(skip, 2))
    assert finish("-c", write_config(config), setup=setup) == CODES[number]
    status = status_of(the_run(config))
    assert (status["status"], status["signal"]) == ("preempted", number.name)
    assert finish("-r", str(the_run(config))) == 0
    assert_same_run(whole(), the_run(config))


@pytest.mark.parametrize("number", marked(range(8), fast=[3]))
def test_a_stop_at_every_batch_of_validation_is_exact(
    number: int, make_config: MakeConfig, whole: RunOnce, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"data_loader__args__batch_size": 8, "trainer__epochs": 2, "trainer__save_every_steps": None}
    config = make_config(tmp_path / "run", **changes)  # 4 batches of validation an epoch
    calls = iter(range(1_000_000))

    def signal_in_batch(*args: Any) -> BatchResult:
        if next(calls) == number:
            os.kill(os.getpid(), signal.SIGTERM)
        return run_batch(*args)

    with monkeypatch.context() as patch:
        patch.setattr("trainer.evaluation.run_batch", signal_in_batch)
        patch.setattr("trainer.trainer.warn_of_wrong_means", lambda *_: None)  # which evaluates too, and would count
        with suppress(Stopped):  # a signal in the last batch of all comes too late
            train(config)
    run_train("-r", str(the_run(config)))
    assert_same_run(whole(**changes), the_run(config))


def test_a_second_signal_leaves_at_once_with_a_whole_checkpoint(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(tmp_path / "run", trainer__epochs=1000, trainer__early_stop=None)
    process = start("-c", write_config(config), setup=partial(signal_twice, Trainer, "_valid_epoch"))
    assert exit_code(process) == 143
    load_checkpoint(find_checkpoint(the_run(config)))
    assert status_of(the_run(config))["status"] == "running"


def signal_twice(owner: type, method: str) -> None:
    """Let this process send itself two signals in the first call of a method, more than a second apart."""
    signal_once(owner, method, signal.SIGTERM, 0)
    pausing = getattr(owner, method)

    def signalling(*args: Any, **kwargs: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1.1)
        return pausing(*args, **kwargs)

    setattr(owner, method, signalling)


@pytest.mark.slow
@pytest.mark.parametrize("num_kills", [3, 100])
def test_a_kill_during_a_save_loses_at_most_the_save_under_way(
    num_kills: int, make_config: MakeConfig, tmp_path: Path
) -> None:
    """Saves come back to back here: one every step. The model is large enough for most kills to hit a write."""
    config = make_config(tmp_path / "run", trainer__epochs=100_000, trainer__save_every_steps=1)
    config["trainer"] |= {"early_stop": None, "keep_checkpoints": 1}
    args = ("-c", write_config(config), "--resume-latest")
    generator = random.Random(0)
    for _ in range(num_kills):
        process = start(*args)
        before = records_of(the_run(config))[-1]["global_step"] if list(tmp_path.glob("run/*/*/metrics.jsonl")) else 0
        wait_until(lambda: list(tmp_path.glob("run/*/*/previous.pth")))
        process.join(generator.uniform(0.3, 0.6))
        process.kill()
        process.join()
        run_dir = the_run(config)
        lines = (run_dir / "metrics.jsonl").read_text().split("\n")[:-1]  # the last line may be half there
        logged = json.loads(lines[-1])["global_step"]
        saved = load_checkpoint(find_checkpoint(run_dir))["position"]["global_step"]
        assert logged - 2 <= saved <= logged, "the step under way and the save under way, no more"
        assert saved >= before - 2


def limit_file_size_at_step(step: int, num_bytes: int) -> None:
    """Let every write beyond `num_bytes` of a file fail from `step` on, as on a full disk (EFBIG for ENOSPC)."""
    after_step = Trainer._after_step

    def limiting(trainer: Trainer) -> None:
        if trainer.position.global_step + 1 == step:
            assert trainer.checkpoints is not None
            trainer.checkpoints.wait()  # for the save before, which a busy machine may not have finished
            resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes))
        after_step(trainer)

    Trainer._after_step = limiting  # type: ignore[method-assign, assignment]


@pytest.mark.parametrize("index", marked(range(20), fast=[9]))
def test_a_full_disk_is_told_and_leaves_the_earlier_checkpoint_whole(
    index: int, make_config: MakeConfig, whole: RunOnce, tmp_path: Path
) -> None:
    changes = {"trainer__tensorboard": False}
    size = (whole(**changes) / "latest.pth").stat().st_size
    config, stderr = make_config(tmp_path / "run", **changes), tmp_path / "stderr"
    limit = 3000 + index * (size - 3000) // 20
    setup = partial(limit_file_size_at_step, 3 + index % 6, limit)
    assert finish("-c", write_config(config), setup=setup, stderr=stderr) == 6
    assert stderr.read_text().count("\n") == 1
    assert "cannot be written to: File too large" in stderr.read_text()
    run_dir = the_run(config)
    assert load_checkpoint(find_checkpoint(run_dir))["position"]["global_step"] > 0
    assert finish("-r", str(run_dir)) == 0
    assert_same_run(whole(**changes), run_dir)
    assert not list(run_dir.glob(".*.tmp"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Yield a disk of 2 MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(path)], check=False).returncode != 0:
        pytest.skip("mounting a tmpfs needs root")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.mark.slow
def test_a_disk_that_fills_up_is_told_and_the_run_goes_on_when_there_is_room(
    small_disk: Path, make_config: MakeConfig, whole: RunOnce, tmp_path: Path
) -> None:
    subprocess.run(["mount", "-o", "remount,size=1200k", str(small_disk)], check=True)  # three checkpoints
    config, stderr = make_config(small_disk / "saved"), tmp_path / "stderr"
    assert finish("-c", write_config(config), stderr=stderr) == 6
    assert "cannot be written to: No space left on device" in stderr.read_text()
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    assert newest(the_run(config))["position"]["global_step"] > 0
    assert finish("-r", str(the_run(config))) == 0
    assert_same_run(whole(), the_run(config))


def test_a_disk_that_cannot_be_written_is_told_before_training(
    small_disk: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    stderr = tmp_path / "stderr"
    config = make_config(small_disk / "saved")
    path = write_config(config)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert finish("-c", path, stderr=stderr) == 6
    assert "cannot be written to: Read-only file system" in stderr.read_text()
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    (small_disk / "ballast").write_bytes(bytes(1_900_000))
    assert finish("-c", path, stderr=stderr) == 6
    assert "cannot be written to: No space left on device" in stderr.read_text()
    (metrics,) = small_disk.glob("saved/*/*/metrics.jsonl")
    assert metrics.read_text() == ""


@pytest.mark.slow
@pytest.mark.parametrize("num_attempts", [2, 20])
def test_a_second_process_on_a_run_is_refused_and_told_who_has_it(
    num_attempts: int, make_config: MakeConfig, tmp_path: Path
) -> None:
    config = make_config(tmp_path / "run", trainer__epochs=100_000, trainer__early_stop=None)
    first = start("-c", write_config(config))
    wait_until(lambda: list(tmp_path.glob("run/*/*/checkpoint-epoch1.pth")))
    run_dir, stderr = the_run(config), tmp_path / "stderr"
    for attempt in range(num_attempts):
        args = ("-r", str(run_dir)) if attempt % 2 else ("-c", write_config(config), "--resume-latest")
        assert finish(*args, stderr=stderr) == 6
        assert f"in use by pid {first.pid} on {socket.gethostname()}" in stderr.read_text()
    first.kill()
    first.join()
    assert finish("-r", str(run_dir), "--set", "trainer.epochs=1") == 0


def poison_loss(monkeypatch: pytest.MonkeyPatch, calls: range, what: str) -> None:
    """Let nll_loss go wrong in the given calls of training: give "loss" NaN, or "gradient" NaN with a finite loss."""
    nll_loss, counter = F.nll_loss, iter(range(1_000_000))

    def poisoned(outputs: torch.Tensor, targets: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        loss = nll_loss(outputs, targets, **kwargs)
        if not torch.is_grad_enabled() or next(counter) not in calls:
            return loss
        if what == "memory":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return loss * float("nan") if what == "loss" else loss + (outputs.sum() * 0).abs().sqrt()

    monkeypatch.setattr(F, "nll_loss", poisoned)
    monkeypatch.setattr("trainer.trainer.check_batch", lambda *_: None)  # which trains too, and would count


NAN = [(what, at_step) for what in ("loss", "gradient") for at_step in (0, 3, 6, 9, 16)]


@pytest.mark.parametrize(
    "case", marked(NAN, fast=[("loss", 0), ("gradient", 3), ("loss", 9)]), ids="{0[0]}-{0[1]}".format
)
def test_nan_stops_the_run_and_no_checkpoint_has_it(
    case: tuple[str, int], make_config: MakeConfig, whole: RunOnce, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    what, at_step = case
    changes = {"trainer__grad_accum_steps": 1, "trainer__log_every_steps": 4}  # 8 steps an epoch
    config = make_config(tmp_path / "run", **changes)
    with monkeypatch.context() as patch:
        poison_loss(patch, range(at_step, at_step + 1), what)
        with pytest.raises(NonFiniteError, match=rf"\(global step {at_step}\): the .* is nan; lr .*; samples \d+, "):
            train(config)
    run_dir = the_run(config)
    assert status_of(run_dir)["status"] == "failed"
    for path in run_dir.glob("*.pth"):
        checkpoint = load_checkpoint(path)
        assert checkpoint["position"]["global_step"] <= at_step
        assert all(value.isfinite().all() for value in checkpoint["model"].values())
    run_train("-r", str(run_dir))
    assert_same_run(whole(**changes), run_dir)


def test_nan_in_training_is_told_without_validation_too(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"data_loader__args__validation_split": 0, "trainer__monitor": "min loss", "trainer__grad_accum_steps": 1}
    poison_loss(monkeypatch, range(4, 5), "loss")
    with pytest.raises(NonFiniteError, match=r"\(global step 4\): the loss is nan"):
        train(make_config(tmp_path / "run", **changes))


def test_nan_in_validation_is_told_and_never_the_best(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    valid_epoch = Trainer._valid_epoch

    def nan_at_first(trainer: Trainer, epoch: int) -> dict[str, float]:
        with monkeypatch.context() as patch:
            if epoch == 1:
                patch.setattr(F, "nll_loss", lambda outputs, targets, **_: outputs.sum() * float("nan"))
            return valid_epoch(trainer, epoch)

    monkeypatch.setattr(Trainer, "_valid_epoch", nan_at_first)
    config = make_config(tmp_path / "run")
    train(config)
    best = load_checkpoint(the_run(config) / "model_best.pth")
    assert best["epoch"] > 1
    assert "epoch 1: val_loss is nan; that is never the best" in caplog.text
    assert [record["val_loss"] is None for record in epochs_of(the_run(config))] == [True, False, False]


@pytest.mark.parametrize(("num_bad", "stops"), [(2, False), (3, True)])
def test_fp16_may_skip_a_few_steps_in_a_row(
    num_bad: int, stops: bool, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(tmp_path / "run", trainer__precision="fp16", trainer__max_skipped_steps=2)
    config["trainer"] |= {"grad_accum_steps": 1, "epochs": 1, "len_epoch": 6}
    poison_loss(monkeypatch, range(2, 2 + num_bad), "gradient")
    if stops:
        with pytest.raises(NonFiniteError, match="the gradient norm is nan"):
            train(config)
    else:
        assert all(value.isfinite().all() for value in newest(train(config))["model"].values())


def test_running_out_of_memory_is_told_with_what_to_try(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison_loss(monkeypatch, range(5, 6), "memory")
    with pytest.raises(OutOfMemoryError, match=r"batch_size 32: CUDA out of memory(.|\n)*try --bs 16") as caught:
        train(make_config(tmp_path / "run"))
    assert caught.value.exit_code == 7
    (status,) = tmp_path.glob("run/*/*/status.json")
    assert json.loads(status.read_text())["status"] == "failed"


def test_what_would_not_be_exact_is_refused_unless_it_is_allowed(
    make_config: MakeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    torch.set_num_threads(2)
    run_dir = train(make_config(tmp_path / "run", trainer__epochs=1))
    torch.set_num_threads(1)
    before = records_of(run_dir)
    args = ("-r", str(run_dir), "--bs", "16", "--set", "trainer.epochs=2")
    with pytest.raises(SystemExit) as caught, exit_on_user_error():
        run_train(*args)
    assert caught.value.code == 4
    message = capsys.readouterr().err
    assert "threads: was 2, is 1" in message
    assert "data_loader.args.batch_size: was 32, is 16" in message
    assert records_of(run_dir) == before
    run_train(*args, "--allow-inexact")
    assert "not an exact resume: threads: was 2, is 1" in caplog.text
    assert records_of(run_dir)[-1]["epoch"] == 2


@pytest.mark.parametrize("num_workers", marked([1, 2, 3], fast=[2]))
def test_the_number_of_workers_does_not_change_a_run(num_workers: int, whole: RunOnce) -> None:
    assert_same_run(whole(), whole(data_loader__args__num_workers=num_workers))


def test_resume_latest_of_a_completed_run_changes_nothing(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(tmp_path / "run")
    run_dir = train(config)
    before = records_of(run_dir)
    assert train(config, "--resume-latest") == run_dir
    assert the_run(config) == run_dir
    assert records_of(run_dir) == before
    assert status_of(run_dir)["status"] == "completed"


@pytest.mark.parametrize(
    "change", ["optimizer.args.lr=1", "arch.args.dropout=0.5", "lr_scheduler.args.lr_lambda=0.5 ** epoch"]
)
def test_what_the_state_belongs_to_cannot_change_even_if_inexact_is_allowed(
    change: str, make_config: MakeConfig, tmp_path: Path
) -> None:
    run_dir = train(make_config(tmp_path / "run", trainer__epochs=1, trainer__len_epoch=1))
    with pytest.raises(CheckpointError, match=f"{change.split('=')[0]}: was (.|\n)*-c with -r starts a new run"):
        run_train("-r", str(run_dir), "--set", change, "--allow-inexact")


def fill_disk_when_stopping() -> None:
    """Let this process be stopped in its second epoch, with every write failing from then on."""
    wait_for_epoch = Trainer._valid_epoch

    def stopping(trainer: Trainer, epoch: int) -> dict[str, float]:
        if epoch == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
            os.kill(os.getpid(), signal.SIGTERM)
        return wait_for_epoch(trainer, epoch)

    Trainer._valid_epoch = stopping  # type: ignore[method-assign, assignment]


def test_a_stop_that_cannot_be_saved_is_told_as_that(make_config: MakeConfig, tmp_path: Path) -> None:
    config, stderr = make_config(tmp_path / "run", trainer__save_every_steps=None), tmp_path / "stderr"
    assert finish("-c", write_config(config), setup=fill_disk_when_stopping, stderr=stderr) == 6
    assert "File too large" in stderr.read_text()
    assert status_of(the_run(config))["status"] == "failed"


def test_a_link_in_a_run_directory_is_not_written_through(make_config: MakeConfig, tmp_path: Path) -> None:
    run_dir = train(make_config(tmp_path / "run", trainer__epochs=1))
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (run_dir / "metrics.jsonl").unlink()
    (run_dir / "metrics.jsonl").symlink_to(precious)
    with pytest.raises(RunDirError, match=r"metrics\.jsonl: is a symbolic link"):
        run_train("-r", str(run_dir), "--set", "trainer.epochs=2")
    assert precious.read_text() == "mine"
