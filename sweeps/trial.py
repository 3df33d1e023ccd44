"""One trial of a sweep: an ordinary run for each seed, in a process of its own, watched, stopped, resumed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checkpoint.file import checkpoint_files
from checkpoint.run_status import STATUS_FILE, read_status
from history.alive import is_held
from history.files import read_records
from history.run import read_run
from parse_config import ConfigParser
from parse_config.named import Slots
from sweeps.space import Parameter, values_of
from sweeps.study import FILES
from utils.errors import CheckpointError, ConfigError, RunDirError
from utils.files import write_json
from utils.signals import EXIT_CODES

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.trial import FrozenTrial

CHILD = Path(__file__).with_name("child.py")
POLL_S, GRACE_S, MAX_RESTARTS = 0.2, 120, 5


class TrialPruned(Exception):
    """The trial is worse than others were after as many epochs."""


class TrialFailed(Exception):
    """A run of the trial failed; the text says why."""


def start_process(script: Path, args: Sequence[str], output: Path) -> subprocess.Popen[bytes]:
    """Start `script`, which ends when this process does. What it prints is appended to `output`."""
    command = [sys.executable, str(CHILD), str(script), *args]
    with open(output, "ab") as file:
        # In a session of its own, so that Ctrl-C comes here alone.
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=file, stderr=file, start_new_session=True)


@dataclass(frozen=True)
class Plan:
    """What is the same for all trials of a sweep."""

    script: Path  # train.py
    directory: Path  # of the sweep: the runs are in it
    config: dict[str, Any]  # whole and checked, with the name and save_dir that make `directory`
    space: list[Parameter]
    seeds: list[int]
    slots: Slots
    start: Callable[[Path, Sequence[str], Path], subprocess.Popen[bytes]] = start_process

    @property
    def device_args(self) -> list[str]:
        """The arguments that give a run this process's device, whatever it had before an interruption."""
        return ["--set", f"device={self.config['device']}", "--set", f"n_gpu={self.config['n_gpu']}"]

    def run_dir(self, number: int, seed: int) -> Path:
        """Return the run directory of a trial with a seed."""
        return self.directory / f"{number:03d}-seed{seed}"

    def config_of(self, trial: Trial | FrozenTrial, **others: Any) -> dict[str, Any]:
        """Return the whole config with the trial's values, and `others` at the top. Raises ConfigError."""
        values = values_of(trial, self.space)
        return ConfigParser({**deepcopy(self.config), **others}, modification=values, slots=self.slots).config


def run_trial(plan: Plan, trial: Trial) -> list[float]:
    """Train the trial with each seed, or go on where it was interrupted; return the best monitored value of each.

    Raises TrialPruned, TrialFailed.
    """
    values = []
    for index, seed in enumerate(plan.seeds):
        run_dir = plan.run_dir(trial.number, seed)
        try:
            config = plan.config_of(trial, seed=seed)
        except ConfigError as error:
            raise TrialFailed(str(error)) from None
        values.append(_trained(plan, trial, run_dir, config, first_step=index * config["trainer"]["epochs"]))
    return values


def _trained(plan: Plan, trial: Trial, run_dir: Path, config: dict[str, Any], first_step: int) -> float:
    given = plan.directory / FILES / f"{run_dir.name}.json"
    output = given.with_suffix(".out")
    metric = config["trainer"]["monitor"].partition(" ")[2]
    report = partial(_reported, trial, run_dir, metric, first_step)
    for attempt in count():
        _wait_until_free(run_dir)
        status = read_status(run_dir).get("status") if run_dir.is_dir() else None
        if status in ("completed", "early_stopped"):
            for _ in report():
                pass
            if (best := read_run(run_dir).best) is None:
                raise TrialFailed(f"{run_dir.name}: {metric} was never finite")
            return best.value
        if status == "pruned":
            raise TrialPruned
        if attempt > MAX_RESTARTS:
            raise TrialFailed(
                f"{run_dir.name}: ended {attempt} times; {_last_lines(output) or 'killed as memory ran out?'}"
            )
        is_resumed = run_dir.is_dir() and bool(checkpoint_files(run_dir))
        if not is_resumed:
            _move_away(run_dir)
            write_json(config, given)
        args = ["-r", str(run_dir)] if is_resumed else ["-c", str(given), "--run-id", run_dir.name]
        output.write_bytes(b"")
        code = _watched(plan.start(plan.script, [*args, *plan.device_args], output), trial, run_dir, report)
        if code == CheckpointError.exit_code and is_resumed:  # such as on another machine, where it is not exact
            _move_away(run_dir)
        elif code > 0 and code not in (*EXIT_CODES.values(), RunDirError.exit_code):  # the last: it is in use just now
            raise TrialFailed(f"{run_dir.name}: {_last_lines(output) or f'exit code {code}'}")
    raise AssertionError


def _watched(process: subprocess.Popen[bytes], trial: Trial, run_dir: Path, report: Callable[[], Iterator[int]]) -> int:
    """Report each epoch until the run ends; return its exit code. Raises TrialPruned once it has been stopped."""
    try:
        while process.poll() is None:
            for _ in report():
                if trial.should_prune():
                    _stop(process)
                    if read_status(run_dir).get("status") == "preempted":  # and not completed just then
                        write_json({**read_status(run_dir), "status": "pruned"}, run_dir / STATUS_FILE)
                        raise TrialPruned
            time.sleep(POLL_S)
    finally:
        _stop(process)
    return process.wait()


def _reported(trial: Trial, run_dir: Path, metric: str, first_step: int) -> Iterator[int]:
    """Report the epochs of a run that are not yet reported to the study; yield each step."""
    known = trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values
    for record in read_records(run_dir):
        value, step = record.get(metric), first_step + record["epoch"]
        if record["kind"] == "epoch" and value is not None and step not in known:  # None was NaN
            trial.report(value, step)
            yield step


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the process, which saves its run first; nothing where it has ended."""
    process.terminate()
    try:
        process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_until_free(run_dir: Path) -> None:
    """Wait for a run whose sweep was killed: it notices, saves and ends."""
    while run_dir.is_dir() and is_held(run_dir):
        time.sleep(POLL_S)


def _move_away(run_dir: Path) -> None:
    """Put a run that cannot go on among the sweep's own files, so that another one begins."""
    if run_dir.is_dir():
        old = run_dir.parent / FILES / f"{run_dir.name}.old"
        shutil.rmtree(old, ignore_errors=True)
        run_dir.rename(old)


def _last_lines(output: Path) -> str:
    """Return the end of what a run that failed printed: its message."""
    lines = [line for line in output.read_text("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1][-500:] if lines else ""
