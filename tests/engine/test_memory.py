"""Memory that runs out: exit 7 with what to try, wherever it is; and a search that stays below a container's limit."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import toy
from checkpoint.file import find_checkpoint, load_checkpoint
from faults import finish, the_run, write_config
from toy_runs import run, small_config, train
from utils import DataError, OutOfMemoryError, exit_on_user_error
from utils.device import memory_limit
from utils.failures import is_out_of_memory

pytestmark = [
    pytest.mark.e2e,  # whole runs
    pytest.mark.skipif(sys.platform != "linux", reason="limits memory, which Linux alone enforces"),
]


def limit_memory(megabytes: int) -> None:
    """Let the address space end after so many megabytes more."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + megabytes * 2**20, -1))


def eat_memory(method: str, megabytes: int, at: int = 0) -> None:
    """Limit memory, and let a call of a method of the trainer want more than there is; half of that in a worker."""
    limit_memory(megabytes)
    original = getattr(toy.ToyTrainer, method)
    calls = iter(range(1_000_000))

    def eating(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == at:
            torch.ones(megabytes * 2**20)
        return original(*args, **kwargs)

    setattr(toy.ToyTrainer, method, eating)


CASES: dict[str, tuple[dict[str, Any], Any, bool]] = {
    "model": ({"arch__args__width": 10**8}, partial(limit_memory, 500), False),
    "data": ({"data_loader__args__num_samples": 10**8}, partial(limit_memory, 500), False),
    "preflight": ({}, partial(eat_memory, "_try_batch", 300), False),
    "step": ({"trainer__save_every_steps": 2}, partial(eat_memory, "_train_step", 300, 3), True),
    "validation": ({}, partial(eat_memory, "_valid_epoch", 300), True),
    "search": ({"data_loader__args__batch_size": "auto"}, partial(eat_memory, "_preflight", 300), False),
}


@pytest.mark.parametrize("case", CASES)
def test_memory_that_runs_out_is_reported_with_what_to_try(case: str, tmp_path: Path) -> None:
    changes, setup, has_run = CASES[case]
    config, stderr = small_config(tmp_path / "run", **changes), tmp_path / "stderr"
    assert finish("-c", write_config(config), script="toy", setup=setup, stderr=stderr) == 7, stderr.read_text()
    message, advice = stderr.read_text().splitlines()
    assert message.startswith("out of memory")
    assert advice.startswith("try ")
    if has_run:
        status = json.loads((the_run(config) / "status.json").read_text())
        assert status["status"] == "failed"
        assert status["error"].startswith("OutOfMemoryError: out of memory on cpu: batch_size 5: ")
        assert load_checkpoint(find_checkpoint(the_run(config)))["position"]["global_step"] == (
            2 if "step" in case else 0
        )
    else:
        assert not list(tmp_path.glob("run/*/*"))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_memory_that_runs_out_as_a_sample_is_read_is_reported(
    num_workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def preflight(_: toy.ToyTrainer) -> None:  # after the model has seen the data
        monkeypatch.setattr(toy.NoisySamples, "__getitem__", lambda *_: np.ones((2**15, 2**30)))

    monkeypatch.setattr(toy.ToyTrainer, "_preflight", preflight)
    config = small_config(tmp_path / "run", data_loader__args__num_workers=num_workers)
    with pytest.raises(OutOfMemoryError, match=r"out of memory on cpu: batch_size 5: .*Unable to allocate"):
        train(config)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("could not create a primitive"), True),
        (RuntimeError("unable to mmap 4000 bytes from file <x>: Cannot allocate memory (12)"), True),
        (RuntimeError("can't start new thread"), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"), True),
        (OutOfMemoryError("out of memory"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (RuntimeError("cuDNN error: CUDNN_STATUS_BAD_PARAM"), False),
        (OSError(errno.ENOENT, "No such file or directory"), False),
        (ValueError("out of memory"), False),
        (KeyError("DefaultCPUAllocator"), False),
    ],
)
def test_what_libraries_say_of_missing_memory_is_understood(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected
    wrapped = DataError("data.csv: cannot be read")
    wrapped.__cause__ = error
    assert is_out_of_memory(wrapped) is expected


def test_missing_memory_behind_another_error_exits_with_7(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught, exit_on_user_error():
        raise DataError("data.csv: cannot be read") from MemoryError()
    assert caught.value.code == 7
    assert capsys.readouterr().err.startswith("out of memory: data.csv: cannot be read\ntry ")


# Containers.


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Path]:
    """Yield a cgroup of this machine's, whose memory is limited to 2 GiB."""
    root, name = Path("/sys/fs/cgroup"), "memory.max"
    if (root / "memory").is_dir():
        root, name = root / "memory", "memory.limit_in_bytes"
    group = root / f"test-{os.getpid()}"
    try:
        group.mkdir()
        (group / name).write_text(str(2**31))
    except OSError:
        pytest.skip("making a cgroup needs root")
    yield group
    group.rmdir()


def enter(group: Path, eats: bool = False) -> None:
    """Put this process into the container; let it take more than there is in the fourth step."""
    (group / "cgroup.procs").write_text(str(os.getpid()))
    assert memory_limit() == 2**31
    if eats:
        train_step, calls = toy.ToyTrainer._train_step, iter(range(1_000_000))

        def eating(*args: Any) -> float:
            if next(calls) == 3:
                torch.ones(2**30)  # 4 GiB
            return train_step(*args)

        toy.ToyTrainer._train_step = eating  # type: ignore[method-assign, assignment]


@pytest.mark.slow
def test_a_search_stays_below_the_limit_of_a_container(container: Path, tmp_path: Path) -> None:
    assert (memory_limit() or 0) > 2**31
    width, num_samples = 10_000, 100_000  # several GB of activations, all at once
    changes = {"arch__args__width": width, "data_loader__args__num_samples": num_samples, "trainer__limit_batches": 1}
    config = small_config(tmp_path / "run", data_loader__args__batch_size="auto", **changes)
    assert finish("-c", write_config(config), script="toy", setup=partial(enter, container)) == 0
    batch_size = json.loads((the_run(config) / "config.json").read_text())["data_loader"]["args"]["batch_size"]
    assert 64 <= batch_size <= 2**31 // (4 * width)


def test_the_next_start_says_that_a_container_killed_the_last(
    container: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = small_config(tmp_path / "run", trainer__save_every_steps=2)
    setup = partial(enter, container, eats=True)
    assert finish("-c", write_config(config), script="toy", setup=setup) == -signal.SIGKILL
    pid = json.loads((the_run(config) / "status.json").read_text())["pid"]
    run("-r", str(the_run(config)))
    assert f"the last process (pid {pid} on " in caplog.text
    assert "was killed: memory ran out, most likely, or by SIGKILL" in caplog.text


def test_the_memory_of_this_process_is_limited_by_the_machine() -> None:
    assert 0 < (memory_limit() or 0) <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
