"""The project starts, locks, writes and reads where Python has nothing of POSIX, as on Windows."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e  # processes of their own
ROOT = Path(__file__).resolve().parents[2]

# A sitecustomize.py, which Python runs before anything else, in processes that it spawns too. The standard library
# knows from sys.platform what it may use, so those of its modules that do are imported before the names go; os.uname
# stays, by which NumPy and CUDA's Python files look for the version of Linux.
WITHOUT_POSIX = """
import asyncio, concurrent.futures.process, concurrent.futures.thread, logging.handlers, multiprocessing.managers
import multiprocessing.popen_spawn_posix, multiprocessing.pool, multiprocessing.queues, multiprocessing.resource_sharer
import multiprocessing.resource_tracker, multiprocessing.spawn, multiprocessing.synchronize, os, random, shutil, signal
import socket, subprocess, sys, tempfile, threading, uuid

for name in "fcntl grp pty pwd readline resource syslog termios tty".split():
    sys.modules[name] = None
NAMES = '''
    chown chroot confstr copy_file_range ctermid fchdir fchown fdatasync fork forkpty fpathconf fstatvfs getegid geteuid
    getgid getgroups getloadavg getpgid getpgrp getpriority getresgid getresuid getsid getuid initgroups killpg lchown
    lockf memfd_create mkfifo mknod nice openpty pathconf pipe2 posix_fadvise posix_fallocate posix_spawn posix_spawnp
    pread preadv pwrite pwritev readv sched_getaffinity sched_setaffinity sched_yield sendfile setegid
    seteuid setgid setgroups setpgid setpriority setregid setreuid setsid setuid statvfs sync sysconf tcgetpgrp
    tcsetpgrp ttyname wait wait3 wait4 waitid writev
    O_CLOEXEC O_DIRECTORY O_DSYNC O_NDELAY O_NOCTTY O_NOFOLLOW O_NONBLOCK O_SYNC
'''
for name in NAMES.split():
    os.__dict__.pop(name, None)
for name in "SIGALRM SIGCONT SIGHUP SIGPIPE SIGPROF SIGQUIT SIGSTOP SIGTSTP SIGUSR1 SIGUSR2 SIGXFSZ alarm".split():
    signal.__dict__.pop(name, None)
multiprocessing.set_start_method("spawn")
"""

# Python ignores a sitecustomize.py that fails; and a spawned process must be as the one that spawned it.
CHECK = """
import multiprocessing, os, signal, sys
assert not hasattr(os, "fork") and not hasattr(signal, "SIGUSR1") and sys.modules["fcntl"] is None
assert multiprocessing.get_start_method() == "spawn"
"""


def run_without_posix(code: str) -> subprocess.CompletedProcess[str]:
    """Run Python code from the project's root, in a process that has, as far as it can, nothing of POSIX."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "sitecustomize.py").write_text(WITHOUT_POSIX, encoding="utf-8")
        command = [sys.executable, "-c", CHECK + code]
        env = os.environ | {"PYTHONPATH": folder}
        return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False)


START = """
import importlib, pkgutil
from pathlib import Path

rooms = ["base", "checkpoint", "logger", "parse_config", "preflight", "speed", "utils"]
names = [module.name for room in rooms for module in pkgutil.walk_packages([room], f"{room}.")]
assert {"checkpoint.writer", "logger.run_log", "preflight.rehearsal", "utils.file_lock"} <= set(names)
for name in ["new_project", *rooms, *names]:
    importlib.import_module(name)

import torch
from checkpoint.run_lock import locked, refuse_if_locked
from utils.device import memory_limit, peak_memory
from utils.errors import RunDirError
from utils.file_lock import file_lock
from utils.files import write_atomic
from utils.signals import EXIT_CODES, StopSignals

with file_lock(folder / "lock", "owner"):
    assert (folder / "lock").read_text() == "owner"
with file_lock(folder / "lock", "next"):
    assert (folder / "lock").read_text() == "next"
with locked(folder):
    try:
        refuse_if_locked(folder)
    except RunDirError as error:
        assert f"in use by pid {os.getpid()} on " in str(error)
    else:
        raise AssertionError("locked twice")
refuse_if_locked(folder)

write_atomic(folder / "data", b"1")
assert sorted(path.name for path in folder.iterdir()) == [".lock", "data", "lock"]

assert EXIT_CODES == {signal.SIGTERM: 143, signal.SIGINT: 130}
with StopSignals() as signals:
    signal.raise_signal(signal.SIGINT)
    assert signals.received is signal.SIGINT
assert peak_memory(torch.device("cpu")) is None
memory_limit()
print("done")
"""


TRAIN = """
import sys

sys.path += ["tests", "tests/engine"]
import torch
import toy
from toy_runs import run, train, small_config

torch.set_num_threads(1)
if __name__ == "__main__":
    run_dir = train(small_config(folder / "saved", data_loader__args__num_workers=1))
    run("-r", str(run_dir), "--set", "trainer.epochs=3")
    print("done")
"""


def test_every_module_imports_and_what_touches_the_system_works(tmp_path: Path) -> None:
    done = run_without_posix(f"from pathlib import Path\nfolder = Path({str(tmp_path)!r})\n{START}")
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


@pytest.mark.slow
def test_a_run_trains_and_resumes_with_a_worker_that_is_spawned(tmp_path: Path) -> None:
    done = run_without_posix(f"from pathlib import Path\nfolder = Path({str(tmp_path)!r})\n{TRAIN}")
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["done"]), done.stderr
