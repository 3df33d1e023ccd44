"""Runs in processes of their own that can be killed, signalled and compared.

A run is of a `script`: a module with `parse_args` and `main`, such as train.py. The processes are forked from a server
that has imported everything and computed nothing, so that hundreds of them can be started and killed in the time that
importing torch again would take for a few.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import sys
import time
import zlib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from helpers import ROOT, assert_equal, newest, records_of

CONTEXT = multiprocessing.get_context("forkserver")
PRELOAD = ["preflight", "torch._dynamo", "torchmetrics", "sklearn.datasets"]  # what takes long to import
CONTEXT.set_forkserver_preload(PRELOAD)
MAY_DIFFER = {"config", "log", "logs"}  # of two checkpoints of equal runs: paths, and what depends on the clock

Process = multiprocessing.process.BaseProcess
Setup = Callable[[], None]


def small_config(save_dir: Path, **changes: Any) -> dict[str, Any]:
    """Return the examples' config of 3 epochs of 7 steps on the digits, with everything that is random turned on."""
    config: dict[str, Any] = json.loads((ROOT / "config.json").read_text())
    config["n_gpu"] = 0
    config["data_loader"]["args"] |= {"source": "digits", "max_shift": 2}
    config["trainer"] |= {"epochs": 3, "save_period": 1, "log_every_steps": 1, "save_dir": str(save_dir)}
    config["trainer"] |= {"ema_decay": 0.9, "grad_accum_steps": 3, "save_every_steps": 2}
    return with_changes(config, **changes)


def with_changes(config: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Set keys of `config` in place, as in trainer__epochs=3; return it."""
    for path, value in changes.items():
        *parents, last = path.split("__")
        node = config
        for parent in parents:
            node = node[parent]
        node[last] = value
    return config


def write_config(config: dict[str, Any]) -> str:
    """Write `config` beside its save_dir, where a script can read it; return its path."""
    path = Path(f"{config['trainer']['save_dir']}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(config))
    return str(path)


def start(*args: str, script: str = "train", setup: Setup | None = None, stderr: Path | None = None) -> Process:
    """Start `script` with `args` in a process of its own; `setup` runs in it first."""
    CONTEXT.set_forkserver_preload([*PRELOAD, script])  # counts for the first process alone, which starts the server
    process = CONTEXT.Process(target=_run, args=(args, script, setup, stderr))
    process.start()
    return process


def finish(*args: str, script: str = "train", setup: Setup | None = None, stderr: Path | None = None) -> int:
    """Run `script` with `args` to its end; return its exit code."""
    return exit_code(start(*args, script=script, setup=setup, stderr=stderr))


def exit_code(process: Process) -> int:
    """Wait for the process; return its exit code, negative where a signal killed it."""
    process.join(120)
    assert process.exitcode is not None, "hangs"
    return process.exitcode


def kill_until_done(config: dict[str, Any], generator: random.Random, max_kills: int, script: str = "train") -> int:
    """Start and kill `script` with --resume-latest at random times, up to `max_kills` times, then let it end.

    Return the number of kills that hit the process before its end.
    """
    args = ("-c", write_config(config), "--resume-latest")
    for num_kills in range(max_kills):
        process = start(*args, script=script)
        process.join(generator.uniform(0.05, 0.6))
        if process.is_alive() and process.pid is not None:
            os.kill(process.pid, signal.SIGKILL)
        code = exit_code(process)
        if code == 0:
            return num_kills
        assert code == -signal.SIGKILL
    assert finish(*args, script=script) == 0
    return max_kills


def signal_once(owner: type, method: str, number: int, skip: int, setattr: Callable[..., None] = setattr) -> None:
    """Let this process send itself a signal in the `skip`-th call of a method, in the midst of what it does."""
    original = getattr(owner, method)
    calls = iter(range(1_000_000))

    def signalling(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == skip:
            os.kill(os.getpid(), number)
        return original(*args, **kwargs)

    setattr(owner, method, signalling)


def the_run(config: dict[str, Any]) -> Path:
    """Return the only run of `config` that has a checkpoint; one killed before its first is not gone on with."""
    (run_dir,) = {path.parent for path in Path(config["trainer"]["save_dir"]).glob("*/*/*.pth")}
    return run_dir


def whole_run(config: dict[str, Any], script: str = "train") -> Path:
    """Train `config` without any fault; return its run directory."""
    assert finish("-c", write_config(config), script=script) == 0
    return the_run(config)


def assert_same_run(expected: Path, got: Path) -> None:
    """Assert that two runs ended in the same state to the bit, and wrote the same logs, each step once."""
    one, other = newest(expected), newest(got)
    assert one.keys() == other.keys()
    for key in one.keys() - MAY_DIFFER:
        assert_equal(one[key], other[key], key)
    assert records_of(expected) == records_of(got)
    assert curves_of(expected) == curves_of(got)


def curves_of(run_dir: Path) -> dict[str, list[tuple[int, float]]]:
    """Return every point of every curve, and a checksum of every image, in the event files; without clock times."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for path in sorted(run_dir.glob("events.out.tfevents.*"), key=lambda path: path.name):  # as TensorBoard reads them
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if value.tensor.float_val and "perf/" not in value.tag:
                    curves.setdefault(value.tag, []).append((event.step, value.tensor.float_val[0]))
                elif value.metadata.plugin_data.plugin_name == "images":
                    picture = b"".join(value.tensor.string_val)
                    curves.setdefault(value.tag, []).append((event.step, zlib.crc32(picture)))
    return curves


def wait_until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait until `condition` holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)


def _run(args: tuple[str, ...], script: str, setup: Setup | None, stderr: Path | None) -> None:
    import torch

    from distributed import launched

    # The server's children would start data-loading workers through servers of their own, which outlive a kill.
    multiprocessing.set_start_method("fork", force=True)
    os.chdir(ROOT)
    torch.set_num_threads(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    os.dup2(os.open(stderr or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), sys.stderr.fileno())
    if setup is not None:
        setup()
    with launched():
        module = import_module(script)
        module.main(module.parse_args(list(args)))
