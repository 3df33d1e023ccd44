"""Kills one process of several, over and over: the others must end by themselves, and any number of them goes on."""

from __future__ import annotations

import os
import random
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

from faults import exit_code, wait_until, write_config
from processes import finish_all, start_all

COUNTS = (1, 2, 3, 4, 6)
END_WITHIN_S = 60.0  # for those that are left
GRACE_S = 1.0  # instead of 5: all of them are on this machine


def mark_when_joined(marks: Path) -> None:
    """Let this process leave a file in `marks` once it is connected with all others."""
    import distributed.failures
    import distributed.launch

    def mark() -> None:
        distributed.failures.introduce()
        (marks / str(os.getpid())).touch()

    distributed.failures.GRACE_S = GRACE_S
    distributed.launch.introduce = mark


def kill_one_of_several(config: dict[str, Any], generator: random.Random, max_kills: int, script: str) -> int:
    """Train `config` by another number of processes each time, until one is killed, `max_kills` times; then to the end.

    Return the number of kills that hit the run before its end.
    """
    args = ("-c", write_config(config), "--resume-latest")
    for num_kills in range(max_kills):
        count = COUNTS[num_kills % len(COUNTS)]
        if not _kill_one(config, generator, count, script):
            return num_kills
    assert finish_all(3, *args, script=script) == [0] * 3
    return max_kills


def _kill_one(config: dict[str, Any], generator: random.Random, count: int, script: str) -> bool:
    """Start `count` processes, kill one at a random time, wait for the others; return False where the run had ended."""
    save_dir = Path(config["trainer"]["save_dir"])
    marks = save_dir.with_name(f"marks-{generator.getrandbits(64):x}")
    marks.mkdir()
    num_before, num_steps, victim = _num_lines(save_dir), generator.randint(0, 3), generator.randrange(count)
    args = ("-c", write_config(config), "--resume-latest")
    setup = partial(mark_when_joined, marks)
    processes = start_all(count, *args, script=script, setup=setup, stderr=marks / "errors.txt")
    wait_until(lambda: sum(path.name.isdigit() for path in marks.iterdir()) == count or count == 1)
    is_far = lambda: num_steps == 0 or _num_lines(save_dir) >= num_before + num_steps  # noqa: E731
    wait_until(lambda: is_far() or not processes[victim].is_alive())
    time.sleep(generator.uniform(0, 0.3 if num_steps == 0 else 0.05))
    processes[victim].kill()
    killed_at = time.monotonic()
    codes = [exit_code(process) for process in processes]
    assert time.monotonic() - killed_at < END_WITHIN_S
    others = [code for number, code in enumerate(codes) if number != victim]
    if codes[victim] == 0 or 0 in others:  # too late: the run has ended
        assert set(codes) <= {0, -signal.SIGKILL}, codes
        return False
    assert codes[victim] == -signal.SIGKILL
    assert others == [1] * len(others), codes
    said = "".join((marks / f"errors.{number}").read_text() for number in range(count) if number != victim)
    expected = [f"process {victim} (pid {processes[victim].pid} on "]
    expected += ["the first process is gone, or its machine"] if victim == 0 else []  # which nobody can name
    assert not others or any(text in said for text in expected), (victim, said)
    return True


def _num_lines(save_dir: Path) -> int:
    return sum(path.read_text().count("\n") for path in save_dir.glob("*/*/metrics.jsonl"))
