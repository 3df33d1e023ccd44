"""What a process may not read, write or open, or is not a file: one line, the right exit code, and no hang."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

import toy
from faults import finish, write_config
from helpers import ROOT, epochs_of
from toy_runs import run, small_config, train
from utils import CheckpointError, RunDirError

pytestmark = pytest.mark.e2e  # whole runs
NOBODY = 65534


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of one epoch."""
    return train(small_config(tmp_path_factory.mktemp("trained") / "saved", trainer__epochs=1))


@pytest.fixture
def public(trained: Path) -> Iterator[Path]:
    """Yield a copy of the run in a folder that everybody may enter and write to."""
    folder = Path(tempfile.mkdtemp())
    run_dir = shutil.copytree(trained, folder / "saved" / "toy" / trained.name)
    config = json.loads((run_dir / "config.json").read_text())
    config["trainer"]["save_dir"] = str(folder / "saved")
    (run_dir / "config.json").write_text(json.dumps(config))
    for path in (folder, *folder.rglob("*")):
        os.chmod(path, 0o777 if path.is_dir() else 0o666)
    yield run_dir
    shutil.rmtree(folder)


# Things that are no files.


def make_socket(path: Path) -> None:
    """Make what cannot be opened at all; its address may be of 100 characters."""
    short = Path(tempfile.mkdtemp()) / "socket"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(short))
    short.rename(path)
    short.parent.rmdir()


def make_device(path: Path) -> None:
    """Make a device that gives zeros for ever."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("making a device needs root")


def make_link(path: Path) -> None:
    """Make a link to a file outside."""
    elsewhere = path.parents[3] / "elsewhere"
    elsewhere.write_text("mine")
    path.symlink_to(elsewhere)


KINDS: dict[str, Callable[[Path], object]] = {
    "FIFO": os.mkfifo,
    "folder": Path.mkdir,
    "socket": make_socket,
    "device": make_device,
    "link": make_link,
}
FILES = ["metrics.jsonl", "info.log", "config.json", "status.json", ".lock", "events", "latest.pth"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FILES)
def test_what_is_no_file_is_refused_in_one_line(name: str, kind: str, trained: Path, tmp_path: Path) -> None:
    run_dir = shutil.copytree(trained, tmp_path / "saved" / "toy" / trained.name)
    path = next(run_dir.glob(f"{name}*"))
    path.unlink()
    KINDS[kind](path)
    config = write_config(small_config(tmp_path / "saved"))
    for args in (("-r", str(run_dir)), ("-c", config, "--resume-latest")):
        with pytest.raises((RunDirError, CheckpointError), match=f"{path.name}: (is|cannot be read)") as caught:
            run(*args, "--set", "trainer.epochs=2")
        assert "\n" not in str(caught.value)
    assert len(list((tmp_path / "saved" / "toy").iterdir())) == 1


@pytest.mark.parametrize("content", ["", "{", "[]", "7", "\udcff", "[" * 100_000, '{"pid": "x", "run": "y"}'])
def test_a_status_that_is_malformed_is_written_anew(content: str, trained: Path, tmp_path: Path) -> None:
    run_dir = shutil.copytree(trained, tmp_path / "run")
    (run_dir / "status.json").write_bytes(content.encode(errors="surrogateescape"))
    run("-r", str(run_dir), "--set", "trainer.epochs=2")
    assert len(epochs_of(run_dir)) == 2
    assert json.loads((run_dir / "status.json").read_text())["status"] == "completed"


@pytest.mark.parametrize("content", ["", "{", "[]", "\udcff", "[" * 100_000])
def test_a_malformed_config_of_a_run_is_told_rather_than_a_new_run_begun(
    content: str, trained: Path, tmp_path: Path
) -> None:
    run_dir = shutil.copytree(trained, tmp_path / "saved" / "toy" / trained.name)
    (run_dir / "config.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(RunDirError, match=r"config\.json: ") as caught:
        run("-c", write_config(small_config(tmp_path / "saved")), "--resume-latest")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("place", ["saved", "saved/toy"])
@pytest.mark.parametrize("flag", [[], ["--resume-latest"]], ids=["new", "newest"])
def test_a_file_where_runs_should_be_is_told(place: str, flag: list[str], tmp_path: Path) -> None:
    config = write_config(small_config(tmp_path / "saved"))
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text("mine")
    with pytest.raises(RunDirError, match="saved"):
        run("-c", config, *flag)
    assert (tmp_path / place).read_text() == "mine"


# Permissions.


def become_nobody(evaluates: bool) -> None:
    """Let this process be of an ordinary user, and the toy evaluate where it should not train."""
    if evaluates:
        toy.parse_args, toy.main = list, toy.evaluate  # type: ignore[assignment]
    __import__("encodings.utf_8_sig")  # Python's own files may lie in root's home
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


def closed(pattern: str, mode: int, run_dir: Path) -> None:
    """Change the mode of what matches in the run directory; root, who made it, keeps it."""
    for path in run_dir.parents[1].glob(pattern):
        os.chmod(path, mode)


CLOSED = {  # pattern under saved/.., mode, exit codes of -r, of --resume-latest and of test.py
    "run directory": ("toy/*", 0o700, (6, 6, 6)),
    "run directory, listed but not entered": ("toy/*", 0o744, (6, 6, 6)),
    "run directory, not written to": ("toy/*", 0o755, (6, 6, 0)),
    "the directory of its name": ("toy", 0o700, (4, 6, 4)),
    "the newest checkpoints": ("toy/*/[lmc]*.pth", 0o600, (4, 4, 4)),
    "all checkpoints": ("toy/*/*.pth", 0o600, (4, 4, 4)),
    "config.json": ("toy/*/config.json", 0o600, (6, 6, 6)),
    "metrics.jsonl": ("toy/*/metrics.jsonl", 0o600, (6, 6, 0)),
    "metrics.jsonl, not written to": ("toy/*/metrics.jsonl", 0o644, (6, 6, 0)),
    "status.json": ("toy/*/status.json", 0o600, (6, 6, 0)),
    "info.log": ("toy/*/info.log", 0o644, (6, 6, 0)),
    ".lock": ("toy/*/.lock", 0o644, (6, 6, 0)),
}


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("what", CLOSED)
def test_what_an_ordinary_user_may_not_open_is_told(what: str, public: Path) -> None:
    pattern, mode, codes = CLOSED[what]
    closed(pattern, mode, public)
    config = public.parents[2] / "config.json"
    shutil.copy(Path(write_config(small_config(public.parents[1], trainer__epochs=2))), config)
    os.chmod(config, 0o644)
    more = ("--set", "trainer.epochs=2")
    stderr = public.parents[2] / "stderr"
    ways = (("-r", str(public), *more), ("-c", str(config), "--resume-latest"), ("-r", str(public)))
    for code, args in zip(codes, ways):
        setup = partial(become_nobody, evaluates=args is ways[2])
        assert finish(*args, script="toy", setup=setup, stderr=stderr) == code, (args, stderr.read_text())
        assert stderr.read_text().count("\n") == (code != 0), stderr.read_text()
    assert len(list(public.parent.iterdir())) == 1


# File handles.


def leave_handles(number: int) -> None:
    """Let this process open so many files more."""
    import resource

    limit = len(os.listdir("/proc/self/fd")) - 1 + number
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts its files as Linux shows them")
@pytest.mark.parametrize(("num_workers", "number"), [(0, 3), (0, 8), (2, 12), (2, 30), (0, 40), (2, 60)])
def test_too_few_file_handles_are_told(num_workers: int, number: int, tmp_path: Path) -> None:
    config = small_config(tmp_path / "saved", trainer__epochs=1, data_loader__args__num_workers=num_workers)
    setup, stderr = partial(leave_handles, number), tmp_path / "stderr"
    code = finish("-c", write_config(config), script="toy", setup=setup, stderr=stderr)
    text = stderr.read_text()
    assert code == (0 if number >= 40 else 6), text
    assert text.count("\n") == (code != 0), text
    assert (tmp_path / "saved").exists() is (code == 0)


# A console that is closed, full or narrow.

OUTPUTS = {
    "closed": "os.close({0}); sys.{1} = None",
    "full": "os.dup2(os.open('/dev/full', os.O_WRONLY), {0})",
    "a pipe that nobody reads": "r, w = os.pipe(); os.dup2(w, {0}); os.close(r); os.close(w)",
    "ASCII": "sys.{1}.reconfigure(encoding='ascii', errors='strict')",
}


def redirect(output: str, streams: str, path: Path) -> None:
    """Let standard output or error, or both, be as `output` says; note in a file what reaches the other one."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        if name in streams:
            exec(OUTPUTS[output].format(number, name))
        else:
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
@pytest.mark.parametrize("args", [(), ("--check",), ("--print-config",)], ids=["run", "check", "print"])
@pytest.mark.parametrize("streams", ["stdout", "stderr", "stdout and stderr"])
@pytest.mark.parametrize("output", OUTPUTS)
def test_a_run_goes_on_whatever_its_output_is(output: str, streams: str, args: tuple[str, ...], tmp_path: Path) -> None:
    config = small_config(tmp_path / "s\u00e4ved \u2026", trainer__epochs=1)
    setup = partial(redirect, output, streams, tmp_path / "said")
    assert finish("-c", write_config(config), *args, script="toy", setup=setup, stderr=tmp_path / "said") == 0
    said = (tmp_path / "said").read_text() if (tmp_path / "said").exists() else ""
    assert "Error" not in said
    if not args:
        [run_dir] = (tmp_path / "s\u00e4ved \u2026" / "toy").iterdir()
        assert "epoch 1/1" in (run_dir / "info.log").read_text(encoding="utf-8")
        assert not [path for path in run_dir.iterdir() if b"epoch 1/1" in path.read_bytes() and path.name != "info.log"]


@pytest.mark.slow
@pytest.mark.parametrize("output", ["| true", ">&-", "2>&-", ">&- 2>&-", ">/dev/full", ">/dev/full 2>/dev/full"])
@pytest.mark.parametrize("args", ["", "--check", "--print-config", "--print-completion bash", "--help"])
def test_a_real_shell_gets_no_word_of_its_own_output(args: str, output: str, tmp_path: Path) -> None:
    config = write_config(small_config(tmp_path / "saved", trainer__epochs=1))
    command = f"set -o pipefail; {sys.executable} tests/engine/toy.py -c {config} {args} {output}"
    env = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests", ROOT / "tests/engine")))}
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
