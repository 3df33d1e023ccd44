"""Signals to a whole process group, at any time of a run, and workers that are killed: nothing is lost."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import toy
from base import BaseTrainer, base_trainer
from checkpoint.file import find_checkpoint, load_checkpoint
from checkpoint.writer import CheckpointWriter
from faults import Process, assert_same_run, exit_code, finish, start, the_run, wait_until, write_config
from helpers import newest
from parse_config import ConfigParser
from toy_runs import run, train
from toy_runs import small_config as toy_config
from utils import exit_on_user_error
from utils.signals import StopSignals

pytestmark = [
    pytest.mark.e2e,  # whole runs
    pytest.mark.skipif(not hasattr(os, "killpg"), reason="no process groups here"),
]
ALONE = (
    "--set",
    "data_loader.args.num_workers=0",
)  # to go on, as no bit depends on workers, and starting them takes long
EXIT_CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129, signal.SIGUSR1: 75}


def config_of(save_dir: Path, loop: str, num_workers: int, **changes: Any) -> dict[str, Any]:
    """Return a config that saves at the epochs' ends alone, so that what a stop saves is what it was asked to."""
    given = {"trainer__loop": loop, "data_loader__args__num_workers": num_workers, "trainer__tensorboard": False}
    return toy_config(save_dir, **given, trainer__early_stop=None, **changes)


def status_of(run_dir: Path) -> dict[str, Any]:
    """Return status.json."""
    content: dict[str, Any] = json.loads((run_dir / "status.json").read_text())
    return content


def lead_group(step_s: float = 0.0) -> None:
    """Make this process the leader of a session, as a shell or `timeout` does, and every step last longer."""
    os.setsid()
    save_if_due = BaseTrainer._save_if_due

    def lasting(trainer: BaseTrainer) -> None:
        time.sleep(step_s)
        save_if_due(trainer)

    BaseTrainer._save_if_due = lasting  # type: ignore[method-assign, assignment]


def start_group(config: dict[str, Any], step_s: float, *args: str, stderr: Path | None = None) -> Process:
    """Start a run in a process group of its own; return when training has begun."""
    process = start("-c", write_config(config), *args, script="toy", setup=partial(lead_group, step_s), stderr=stderr)
    pattern = f"{Path(config['trainer']['save_dir']).name}/*/*/previous.pth"  # the second save, of the first epoch
    wait_until(lambda: list(Path(config["trainer"]["save_dir"]).parent.glob(pattern)) or not process.is_alive())
    return process


def workers_of(process: Process) -> list[int]:
    """Return the pids of a process's children."""
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def assert_stopped(
    process: Process, config: dict[str, Any], number: signal.Signals, expected: Path, is_saved: bool = True
) -> None:
    """Assert that the process ended by the signal, saved where it was, and that its run goes on to the bit."""
    assert exit_code(process) == EXIT_CODES[number]
    run_dir = the_run(config)
    status = status_of(run_dir)
    assert (status["status"], status["signal"]) == ("preempted", number.name)
    if is_saved:
        assert newest(run_dir)["position"] == status["position"]
    run("-r", str(run_dir), *ALONE)
    assert_same_run(expected, run_dir)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that gives the run of a loop that nothing stopped, trained once."""
    runs: dict[str, Path] = {}

    def expect(loop: str, **changes: Any) -> Path:
        if loop not in runs:
            runs[loop] = train(config_of(tmp_path_factory.mktemp(loop) / "run", loop, 0, **changes))
        return runs[loop]

    return expect


@pytest.mark.parametrize(
    ("loop", "num_workers", "number"),
    [
        pytest.param("counted", 0, signal.SIGTERM, marks=pytest.mark.slow),
        ("counted", 2, signal.SIGTERM),
        ("counted", 2, signal.SIGHUP),
        ("plain", 2, signal.SIGTERM),
        ("plain", 2, signal.SIGINT),
        pytest.param("plain", 2, signal.SIGUSR1, marks=pytest.mark.slow),
    ],
)
def test_a_signal_to_the_whole_group_saves(
    loop: str, num_workers: int, number: signal.Signals, expected: Callable[..., Path], tmp_path: Path
) -> None:
    config = config_of(tmp_path / "run", loop, num_workers, trainer__epochs=3)
    process = start_group(config, 0.05)
    assert process.pid
    os.kill(process.pid, number)  # as `timeout` does: the process, and its group
    os.killpg(process.pid, number)
    assert_stopped(process, config, number, expected(loop, trainer__epochs=3))


@pytest.mark.parametrize("loop", ["counted", "plain"])
def test_a_signal_to_every_process_saves(loop: str, expected: Callable[..., Path], tmp_path: Path) -> None:
    """As Slurm and systemd do it: one process after the other, workers first, whatever group they are in."""
    config = config_of(tmp_path / "run", loop, 2, trainer__epochs=3)
    process = start_group(config, 0.05)
    wait_until(lambda: len(workers_of(process)) == 2)
    time.sleep(0.1)  # a worker that dies as it starts is noticed after 5 s
    for pid in [*workers_of(process), process.pid]:
        assert pid
        os.kill(pid, signal.SIGTERM)
        time.sleep(0.05)
    # A loop that cannot be stopped in validation goes on from before.
    assert_stopped(process, config, signal.SIGTERM, expected(loop, trainer__epochs=3), is_saved=False)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes:UserWarning")
@pytest.mark.parametrize("num_workers", [0, 2, 4])
@pytest.mark.parametrize("number", range(34))
def test_soak_of_signals(num_workers: int, number: int, expected: Callable[..., Path], tmp_path: Path) -> None:
    """102 runs; the first half of them counts its steps."""
    loop, epochs = "counted" if number < 17 else "plain", 12
    config = config_of(tmp_path / "run", loop, num_workers, trainer__epochs=epochs)
    process = start_group(config, 0.01)
    assert process.pid
    time.sleep(random.Random(f"{num_workers} {number}").uniform(0, 0.5))
    assert process.is_alive()
    os.killpg(process.pid, signal.SIGTERM)
    assert_stopped(process, config, signal.SIGTERM, expected(loop, trainer__epochs=epochs))


# A second signal.


def signal_twice(pause_s: float) -> None:
    """Let this process send itself two signals in the first validation."""
    validate = toy.ToyTrainer._valid_epoch

    def signalling(trainer: toy.ToyTrainer, epoch: int) -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(pause_s)
        os.kill(os.getpid(), signal.SIGTERM)
        return validate(trainer, epoch)

    toy.ToyTrainer._valid_epoch = signalling  # type: ignore[method-assign, assignment]


@pytest.mark.parametrize(("pause_s", "code", "status"), [(0, 130, "preempted"), (1.1, 143, "running")])
def test_a_second_signal_leaves_at_once_unless_it_is_the_same_request(
    pause_s: float, code: int, status: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = toy_config(tmp_path / "run")
    assert finish("-c", write_config(config), script="toy", setup=partial(signal_twice, pause_s)) == code
    load_checkpoint(find_checkpoint(the_run(config)))
    assert status_of(the_run(config))["status"] == status
    run("-r", str(the_run(config)))
    assert ("was killed: memory ran out, most likely, or by SIGKILL" in caplog.text) == (status == "running")


def ignore_hangup() -> None:
    """Start as under nohup, and let the terminal be closed in the first step."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal_in(toy.ToyTrainer, "_train_step", signal.SIGHUP)


def test_a_closed_terminal_does_not_end_a_run_under_nohup(tmp_path: Path) -> None:
    config = toy_config(tmp_path / "run")
    assert finish("-c", write_config(config), script="toy", setup=ignore_hangup) == 0
    assert status_of(the_run(config))["status"] == "completed"


# Signals before and after training.


def signal_in(owner: Any, method: str, number: int, setattr: Callable[..., None] = setattr) -> None:
    """Let this process send itself a signal in the first call of a method, after what it does."""
    original = getattr(owner, method)
    calls = iter([None])

    def signalling(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        for _ in calls:
            os.kill(os.getpid(), number)
        return result

    setattr(owner, method, signalling)


def stopped_in(place: tuple[Any, str], number: signal.Signals, call: Callable[[], object]) -> int:
    """Return what `call` exits with when the signal comes in a method."""
    with pytest.MonkeyPatch.context() as patch:
        signal_in(*place, number, patch.setattr)
        with pytest.raises(SystemExit) as caught, exit_on_user_error():
            call()
    assert isinstance(caught.value.code, int)
    return caught.value.code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize(
    "place",
    [(ConfigParser, "init_obj"), (toy.ToyTrainer, "_preflight"), (BaseTrainer, "_environment")],
    ids=lambda place: place[1],
)
def test_a_signal_before_the_run_leaves_nothing(place: Any, number: signal.Signals, tmp_path: Path) -> None:
    config = toy_config(tmp_path / "run")
    assert stopped_in(place, number, lambda: train(config)) == EXIT_CODES[number]
    assert list((tmp_path / "run").iterdir()) == [tmp_path / "run" / "given.json"]


@pytest.mark.parametrize(
    "place",
    [
        (ConfigParser, "make_run_dir"),
        (ConfigParser, "start_logging"),
        (base_trainer, "announce_start"),
        (CheckpointWriter, "save"),
    ],
    ids=lambda place: place[1],
)
def test_a_signal_while_the_run_is_made_leaves_one_to_go_on_with(
    place: Any, expected: Callable[..., Path], tmp_path: Path
) -> None:
    config = config_of(tmp_path / "run", "counted", 0, trainer__epochs=3)
    assert stopped_in(place, signal.SIGTERM, lambda: train(config)) == 143
    assert status_of(the_run(config))["status"] == "preempted"
    run("-r", str(the_run(config)))
    assert_same_run(expected("counted", trainer__epochs=3), the_run(config))


class SignalsWhenDeleted:
    """Gets a signal where Python would swallow what its handler raises."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_in_a_destructor_is_not_lost() -> None:
    @exit_on_user_error()
    def start_a_run() -> None:
        SignalsWhenDeleted()
        with StopSignals() as signals:
            assert signals.received is signal.SIGTERM

    with pytest.raises(SystemExit) as caught:
        start_a_run()
    assert caught.value.code == 143


def test_a_signal_that_becomes_an_error_of_a_library_ends_the_process_by_its_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    @exit_on_user_error()
    def start() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except SystemExit as error:  # as `type` does, in Python 3.11, with what __set_name__ raises
            raise RuntimeError("Error calling __set_name__") from error

    with pytest.raises(SystemExit) as caught:
        start()
    assert caught.value.code == 143
    assert capsys.readouterr().err == ""


def test_a_signal_in_a_test_ends_it(expected: Callable[..., Path]) -> None:
    run_dir = expected("counted", trainer__epochs=3)
    assert stopped_in((ConfigParser, "init_obj"), signal.SIGHUP, lambda: toy.evaluate(["-r", str(run_dir)])) == 129


def test_a_signal_after_the_last_step_of_all_changes_nothing(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        signal_in(base_trainer, "announce_end", signal.SIGTERM, patch.setattr)
        run_dir = train(toy_config(tmp_path / "run"))
    assert status_of(run_dir)["status"] == "completed"


# Workers that die.

DEATHS = {
    signal.SIGKILL: (7, "was killed, most likely as memory ran out"),
    signal.SIGBUS: (7, "ran out of shared memory"),
    signal.SIGSEGV: (1, "was ended by SIGSEGV"),
}


@pytest.mark.parametrize(
    ("loop", "number"),
    [
        ("counted", signal.SIGKILL),
        ("plain", signal.SIGKILL),
        ("plain", signal.SIGBUS),
        pytest.param("counted", signal.SIGSEGV, marks=pytest.mark.slow),
    ],
)
def test_a_worker_that_dies_amid_a_step_is_reported_and_the_run_is_saved(
    loop: str, number: signal.Signals, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pids: list[int] = []
    earlier = multiprocessing.active_children()  # what pytest remembers of another test's error may hold its workers

    def build(*args: Any, **kwargs: Any) -> Any:
        built = toy.TRAINERS[loop](*args, **kwargs)
        built.optimizer.register_step_pre_hook(lambda *_: kill_worker(built))
        return built

    def kill_worker(trainer: BaseTrainer) -> None:
        if trainer.position.global_step == 16 and not pids:
            pids.append(next(child.pid or 0 for child in multiprocessing.active_children() if child not in earlier))
            os.kill(pids[0], number)
            time.sleep(0.2)  # SIGCHLD comes here

    small = {"data_loader__args__batch_size": 2}  # 14 steps an epoch
    expected = train(config_of(tmp_path / "whole", loop, 0, **small))
    config = config_of(tmp_path / "run", loop, 2, **small)
    with pytest.raises(SystemExit) as caught, exit_on_user_error():
        train(config, trainer=build)
    run_dir, (code, text) = the_run(config), DEATHS[number]
    assert caught.value.code == code
    message = capfd.readouterr().err.splitlines()[-1].strip("\0")  # torch has its worker say something too
    assert message.startswith(f"a data-loading worker (pid {pids[0]}) {text}")
    assert message.endswith(f"resume with: python train.py -r {run_dir}")
    status, saved = status_of(run_dir), newest(run_dir)
    assert (status["status"], status["error"]) == ("failed", f"WorkerDiedError: {message}")
    assert 17 <= saved["position"]["global_step"] == saved["optimizer"]["state"][0]["step"] < 28
    run("-r", str(run_dir), *ALONE)
    assert_same_run(expected, run_dir)


class InitFn:
    """A worker_init_fn of a project's own, which leaves a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, worker_id: int) -> None:
        assert os.getpgid(0) == os.getpid()
        (self.folder / str(worker_id)).touch()


def test_the_loaders_own_worker_init_fn_is_called_too(tmp_path: Path) -> None:
    data = torch.utils.data.TensorDataset(torch.arange(8))
    loader = torch.utils.data.DataLoader(data, 2, num_workers=2, worker_init_fn=InitFn(tmp_path))
    assert len(list(toy.BaseDataLoader.adopt(loader))) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]
