"""Several processes are one run: real processes, connected by gloo."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from faults import assert_same_run, exit_code, finish, small_config, start, the_run, wait_until, write_config
from helpers import newest, records_of
from processes import finish_all, start_all
from utils import DataError

METRICS: list[Any] = [
    "accuracy",
    {"type": "MulticlassF1Score", "args": {"num_classes": 10}},
    {"type": "MulticlassConfusionMatrix", "args": {"num_classes": 10}},
    {"type": "MulticlassAUROC", "args": {"num_classes": 10}},
]
EVERYTHING: dict[str, Any] = {
    "arch": {"type": "NormNet"},
    "metrics": METRICS,
    "data_loader__args__batch_size": 48,
    "trainer__virtual_ranks": 12,
    "trainer__log_figures": None,  # they show what the first process validates
    "trainer__epochs": 1,
    "trainer__max_grad_norm": 1.0,
    "lr_scheduler": {"type": "OneCycleLR", "interval": "step", "args": {"max_lr": 0.01, "total_steps": 24}},
}


def run_by(num: int, config: dict[str, Any], script: str = "train") -> Path:
    """Train `config` by so many processes; return its run directory."""
    assert finish_all(num, "-c", write_config(config), script=script) == [0] * num
    return the_run(config)


@pytest.fixture(scope="module")
def by_one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the run of EVERYTHING by one process."""
    config = small_config(tmp_path_factory.mktemp("by_one") / "run", **EVERYTHING)
    assert finish("-c", write_config(config), script="norm_train") == 0
    return the_run(config)


@pytest.mark.parametrize("num", [3, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 4, 6))])
def test_no_bit_depends_on_how_many_processes_compute_the_slices(num: int, by_one: Path, tmp_path: Path) -> None:
    assert_same_run(by_one, run_by(num, small_config(tmp_path / "run", **EVERYTHING), "norm_train"))


def test_a_constant_buffer_stays_as_it_is(by_one: Path) -> None:
    assert newest(by_one)["model"]["scale"] == torch.tensor(0.1)


@pytest.mark.parametrize(
    "num_samples", [1, 7, *(pytest.param(n, marks=pytest.mark.slow) for n in range(2, 18) if n != 7)]
)
def test_validation_is_the_same_to_the_last_digit_whoever_computes_it(num_samples: int, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"data_loader__args__batch_size": 5, "data_loader__args__validation_split": num_samples}
    changes |= {"trainer__virtual_ranks": 2, "trainer__epochs": 1, "trainer__limit_batches": 4, "metrics": METRICS}
    runs = [run_by(num, small_config(tmp_path / str(num), **changes)) for num in (1, 2)]
    assert records_of(runs[0]) == records_of(runs[1])


@pytest.mark.parametrize("num", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (3, 4))])
def test_data_parallel_training_is_that_of_one_process(num: int, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"arch__args__dropout": 0.0, "data_loader__args__batch_size": 50, "trainer__epochs": 3}
    changes["optimizer"] = {"type": "SGD", "args": {"lr": 0.05, "momentum": 0.9}}  # Adam divides by small gradients
    one, several = (run_by(n, small_config(tmp_path / str(n), **changes)) for n in (1, num))
    expected, got = (torch.cat([w.flatten() for w in newest(run)["model"].values()]) for run in (one, several))
    assert (got - expected).norm() <= 1e-6 * expected.norm()
    for before, after in zip(records_of(one), records_of(several)):
        assert after["loss"] == pytest.approx(before["loss"], rel=1e-6)


@pytest.mark.parametrize("num", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_a_signal_to_one_process_stops_all_and_they_resume_to_the_bit(num: int, tmp_path: Path) -> None:
    changes = {"trainer__epochs": 2, "trainer__save_every_steps": 1000, "trainer__save_period": 1000}
    expected = run_by(num, small_config(tmp_path / "whole", **changes))
    config = small_config(tmp_path / "stopped", **changes)
    processes = start_all(num, "-c", write_config(config))
    wait_until(lambda: len(metrics_of(config)) >= 3)
    os.kill(processes[-1].pid or 0, signal.SIGTERM)
    assert [exit_code(process) for process in processes] == [143] * num
    assert json.loads((the_run(config) / "status.json").read_text())["status"] == "preempted"
    assert finish_all(num, "-r", str(the_run(config))) == [0] * num
    assert_same_run(expected, the_run(config))


def write_slowly() -> None:
    """Let a save take 2 seconds more."""
    from checkpoint.writer import CheckpointWriter

    write = CheckpointWriter._write

    def writing(*args: Any) -> None:
        time.sleep(2)
        write(*args)

    setattr(CheckpointWriter, "_write", writing)  # noqa: B010  # which mypy lets nobody assign


@pytest.mark.slow
def test_no_process_exits_before_the_first_one_has_saved(tmp_path: Path) -> None:
    config = small_config(tmp_path / "run", trainer__save_every_steps=1000, trainer__save_period=1000)
    config["trainer"]["epochs"] = 1000
    processes = start_all(2, "-c", write_config(config), setup=write_slowly)
    wait_until(lambda: len(metrics_of(config)) >= 3)
    os.kill(processes[0].pid or 0, signal.SIGTERM)
    assert exit_code(processes[1]) == 143
    assert newest(the_run(config))["position"]["global_step"] >= 3
    assert exit_code(processes[0]) == 143


def metrics_of(config: dict[str, Any]) -> list[str]:
    """Return the lines of the metrics file of a run that may not have begun."""
    paths = list(Path(config["trainer"]["save_dir"]).glob("*/*/metrics.jsonl"))
    return paths[0].read_text().splitlines() if paths else []


def test_another_number_of_processes_is_refused_unless_inexact(tmp_path: Path) -> None:
    config = small_config(tmp_path / "run", trainer__epochs=1)
    run_dir = run_by(2, config)
    args = ("-r", str(run_dir), "--set", "trainer.epochs=2")
    stderr = tmp_path / "errors.txt"
    assert exit_code(start(*args, stderr=stderr)) == 4
    assert "world_size: was 2, is 1" in stderr.read_text()
    assert finish_all(3, *args, "--allow-inexact") == [0] * 3


def wait_briefly() -> None:
    """Let the processes that are left wait for the others for less than 5 seconds."""
    from distributed import failures

    failures.GRACE_S = 2.0


def test_a_killed_process_ends_all_and_is_named(tmp_path: Path) -> None:
    config = small_config(tmp_path / "run", trainer__epochs=1000)
    processes = start_all(3, "-c", write_config(config), setup=wait_briefly, stderr=tmp_path / "errors.txt")
    wait_until(lambda: len(metrics_of(config)) >= 3)
    os.kill(processes[1].pid or 0, signal.SIGKILL)
    started = time.monotonic()
    assert [exit_code(process) for process in processes] == [1, -signal.SIGKILL, 1]
    assert time.monotonic() - started < 60
    errors = [(tmp_path / f"errors.{number}").read_text() for number in (0, 2)]
    [said] = [text for text in errors if "process 1" in text]
    assert f"process 1 (pid {processes[1].pid} on " in said
    assert said.splitlines()[-1].endswith("was killed")
    assert "Traceback" not in "".join(errors)


@pytest.mark.slow
def test_a_process_that_hangs_is_named(tmp_path: Path) -> None:
    config = small_config(tmp_path / "run", trainer__epochs=1000, trainer__process_timeout_s=2.0)
    processes = start_all(2, "-c", write_config(config), stderr=tmp_path / "errors.txt")
    wait_until(lambda: len(metrics_of(config)) >= 3)
    os.kill(processes[1].pid or 0, signal.SIGSTOP)
    try:
        assert exit_code(processes[0]) == 1
    finally:
        os.kill(processes[1].pid or 0, signal.SIGKILL)
        processes[1].join()
    assert f"process 1 (pid {processes[1].pid} on " in (tmp_path / "errors.0").read_text()
    assert "hangs: no answer within" in (tmp_path / "errors.0").read_text()


def fail_in_the_second_process() -> None:
    """Let process 1 find bad data in its third step."""
    if os.environ["RANK"] != "1":
        return
    from trainer import Trainer

    step, places = Trainer._train_step, iter(range(1_000_000))

    def failing(*args: Any) -> Any:
        if next(places) == 2:
            raise DataError("sample 7 is damaged")
        return step(*args)

    setattr(Trainer, "_train_step", failing)  # noqa: B010  # which mypy lets nobody assign


def test_the_process_that_fails_speaks_for_all(tmp_path: Path) -> None:
    config = small_config(tmp_path / "run")
    args = ("-c", write_config(config))
    processes = start_all(3, *args, setup=fail_in_the_second_process, stderr=tmp_path / "errors.txt")
    assert [exit_code(process) for process in processes] == [3] * 3
    errors = "".join((tmp_path / f"errors.{number}").read_text() for number in range(3))
    assert errors.count("sample 7 is damaged") == 1
    assert "Traceback" not in errors
    status = json.loads((the_dir(config) / "status.json").read_text())
    assert status["status"] == "failed"
    assert "sample 7 is damaged" in status["error"]


def the_dir(config: dict[str, Any]) -> Path:
    """Return the only run directory, which may have no checkpoint."""
    (run_dir,) = Path(config["trainer"]["save_dir"]).glob("*/*")
    return run_dir


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trainer__virtual_ranks": 1}, "trainer.virtual_ranks: 1, but there are 2 processes"),
        ({"trainer__strategy": {"sync_batchnorm": True}}, "trainer.strategy.sync_batchnorm: torch has it for GPUs"),
        ({"data_loader__args__batch_size": "auto"}, '"auto" is for one process'),
        ({"trainer__cuda_graph": True, "n_gpu": 0}, "trainer.cuda_graph"),
    ],
)
def test_what_several_processes_cannot_do_is_refused_once(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    config = small_config(tmp_path / "run", **changes)
    processes = start_all(2, "-c", write_config(config), stderr=tmp_path / "errors.txt")
    assert [exit_code(process) for process in processes] == [2, 2]
    assert "".join((tmp_path / f"errors.{number}").read_text() for number in range(2)).count(message) == 1
    assert not list(Path(config["trainer"]["save_dir"]).glob("*/*"))
