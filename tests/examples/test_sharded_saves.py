"""Checkpoints of which each process writes its own part: exact, whole after any kill, and one message where not."""

from __future__ import annotations

import os
import resource
import signal
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from checkpoint.convert import main as convert
from checkpoint.file import find_checkpoint, load_checkpoint
from checkpoint.shards import Shards
from faults import MAY_DIFFER, Setup, curves_of, exit_code, finish, signal_once, the_run, with_changes, write_config
from helpers import assert_equal, newest, records_of
from processes import finish_all, start_all
from sharded_runs import FSDP, PARTS, assert_close, config_of, reloaded, run, trained

# process, module, class in it, what it calls: where the process is killed, before the call
MOMENTS = [
    pytest.param(1, "torch.distributed.checkpoint", "FileSystemWriter", "write_data", id="one-before-its-shards"),
    pytest.param(0, "torch.distributed.checkpoint", "FileSystemWriter", "finish", id="first-before-the-metadata"),
    pytest.param(1, "checkpoint.shard_writer", None, "_digests", id="one-after-its-shards"),
    pytest.param(0, "checkpoint.shard_writer", None, "fsync_dir", id="first-before-the-name"),
    pytest.param(0, "checkpoint.writer", "CheckpointWriter", "_write_file", id="first-before-the-file"),
    pytest.param(0, "checkpoint.writer", None, "link", id="first-between-the-names"),
    pytest.param(0, "checkpoint.shards", "Path", "rmdir", id="first-while-it-deletes"),
]


def saving_shards(config: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Let each process of `config` save its own shards."""
    return with_changes(config, **{"trainer__strategy": FSDP | {"checkpoint": "sharded"}, **changes})


def random_config(save_dir: Path, **changes: Any) -> dict[str, Any]:
    """Return the config of a run with random numbers that are a process's own."""
    random = {"arch__args__dropout": 0.2, "data_loader__args__max_shift": 2}
    return saving_shards(config_of(save_dir, **random), **changes)


def assert_same_shards(expected: Path, got: Path) -> None:
    """Assert what `assert_same_run` does, of what is in the shards too."""
    one, other = (Shards(newest(run_dir)).merged() for run_dir in (expected, got))
    assert one.keys() == other.keys()
    for key in one.keys() - MAY_DIFFER:
        assert_equal(one[key], other[key], key)
    assert records_of(expected) == records_of(got)
    assert curves_of(expected) == curves_of(got)


def named(run_dir: Path) -> set[str]:
    """Return the directories of shards that checkpoints of a run name."""
    return {load_checkpoint(path)["shards"]["directory"] for path in run_dir.glob("*.pth")}


def directories(run_dir: Path) -> set[str]:
    """Return the directories of shards that there are, unfinished ones too."""
    return {path.name for path in run_dir.iterdir() if "shards" in path.name}


@pytest.mark.slow
def test_a_resumed_run_ends_as_one_that_never_stopped(tmp_path: Path) -> None:
    config = random_config(tmp_path / "part", trainer__keep_checkpoints=1)
    trained(config, 2)
    part = trained(with_changes(config, trainer__epochs=2), 2, "--resume-latest")
    config["trainer"]["save_dir"] = str(tmp_path / "whole")
    whole = trained(config, 2)
    assert_same_shards(whole, part)
    assert not any(tensor.numel() for tensor in newest(part)["model"].values())
    for run_dir in (whole, part):
        assert directories(run_dir) == named(run_dir)


@pytest.mark.slow
def test_converted_they_are_the_file_that_the_first_process_would_have_written(tmp_path: Path) -> None:
    config = random_config(tmp_path / "shards")
    convert([str(find_checkpoint(trained(config, 2))), str(tmp_path / "merged.pth")])
    config["trainer"]["save_dir"] = str(tmp_path / "full")
    full = trained(with_changes(config, trainer__strategy__checkpoint="full"), 2)
    merged, plain = load_checkpoint(tmp_path / "merged.pth"), newest(full)
    assert merged.keys() == plain.keys()
    for key in plain.keys() - MAY_DIFFER:
        assert_equal(plain[key], merged[key], key)
    config = with_changes(config, trainer__strategy__checkpoint="sharded", trainer__epochs=2)
    assert newest(trained(config, 2, "--resume-latest"))["position"]["epoch"] == 3  # either goes on from the other


@pytest.mark.slow
def test_any_number_of_processes_loads_them(tmp_path: Path) -> None:
    config = saving_shards(config_of(tmp_path / "run"))
    run_dir = trained(config, 2)
    path = run_dir / "checkpoint-epoch1.pth"
    saved = Shards(load_checkpoint(path)).merged()
    plain = with_changes(config, trainer__strategy__checkpoint="full")
    for size in (1, 2, 3):
        assert not run(plain, size, "-r", str(path), do=reloaded)
        state = torch.load(tmp_path / "run.out", weights_only=True)
        for key in PARTS:
            assert_equal(saved[key], state[key], key)
    assert finish("-r", str(path), script="test") == 0
    assert "was 2, is 3" in run(with_changes(config, trainer__epochs=2), 3, "--resume-latest")
    trained(config, 3, "--resume-latest", "--allow-inexact")
    assert newest(run_dir)["position"]["epoch"] == 3


def _signalled_at(number: int, module: str, owner: str | None, name: str, sent: int) -> None:
    """Let process `number` send itself a signal before its fifth call of `name`, in the thread that saves."""
    import distributed.failures

    distributed.failures.GRACE_S = 1.0  # instead of 5: all of them are on this machine
    if os.environ["RANK"] == str(number):
        target: Any = import_module(module)
        signal_once(getattr(target, owner) if owner else target, name, sent, 4)


def _faulty(config: dict[str, Any], fault: Setup | None, *args: str) -> tuple[list[int], str]:
    """Run `config` in two processes with a fault; return their exit codes and errors."""
    out, path = Path(config["trainer"]["save_dir"]).with_suffix(".out"), write_config(config)
    codes = [exit_code(process) for process in start_all(2, "-c", path, *args, setup=fault, stderr=out)]
    return codes, "".join(out.with_suffix(f".{number}").read_text() for number in range(2))


@pytest.mark.slow
@pytest.mark.parametrize(("number", "module", "owner", "name"), MOMENTS)
def test_a_save_that_is_killed_anywhere_leaves_one_that_resumes(
    tmp_path: Path, number: int, module: str, owner: str | None, name: str
) -> None:
    config = random_config(tmp_path / "part", trainer__save_every_steps=1, trainer__keep_checkpoints=1)
    codes, errors = _faulty(config, partial(_signalled_at, number, module, owner, name, signal.SIGKILL))
    assert codes[number] == -signal.SIGKILL
    assert codes[1 - number] == 1
    assert f"process {number} (pid " in errors or "the first process is gone" in errors, errors
    assert "Traceback" not in errors
    Shards(newest(the_run(config))).check(is_shared=False)
    part = trained(config, 2, "--resume-latest")
    assert directories(part) == named(part)
    config["trainer"]["save_dir"] = str(tmp_path / "whole")
    assert_same_shards(trained(config, 2), part)


@pytest.mark.slow
def test_a_run_that_is_stopped_while_it_saves_saves_once_more(tmp_path: Path) -> None:
    config = random_config(tmp_path / "part", trainer__save_every_steps=1)
    fault = partial(_signalled_at, 1, "checkpoint.shard_writer", None, "_digests", signal.SIGTERM)
    codes, errors = _faulty(config, fault)
    assert codes == [143, 143], errors
    assert len({path.stat().st_ino for path in the_run(config).glob("*.pth")}) == 2
    part = trained(config, 2, "--resume-latest")
    config["trainer"]["save_dir"] = str(tmp_path / "whole")
    assert_same_shards(trained(config, 2), part)
    assert directories(part) == named(part)


def _full(number: int) -> None:
    """Let process `number` find no room for its shards."""
    import distributed.failures

    distributed.failures.GRACE_S = 1.0
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    if os.environ["RANK"] == str(number):
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))


@pytest.mark.slow
def test_a_process_that_cannot_write_ends_all_with_one_message(tmp_path: Path) -> None:
    config = random_config(tmp_path / "run")
    codes, errors = _faulty(config, partial(_full, 1))
    assert codes == [6, 6], errors
    assert "cannot be written to: File too large" in errors
    assert errors.count("\n") == 1, errors


@pytest.mark.slow
def test_a_damaged_shard_is_one_line(tmp_path: Path) -> None:
    config = random_config(tmp_path / "run")
    run_dir = trained(config, 2)
    (name,) = {load_checkpoint(run_dir / "latest.pth")["shards"]["directory"]}
    file = run_dir / name / "__1_0.distcp"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    codes, errors = _faulty(with_changes(config, trainer__epochs=2), None, "--resume-latest")
    assert codes == [4, 4]
    assert f"{file}: damaged" in errors
    assert errors.count("\n") == 1, errors
    assert not run(config, 2, "-r", str(run_dir / "previous.pth"))


@pytest.mark.slow
def test_batchnorm_in_a_sharded_model_is_that_of_ddp_and_resumes(tmp_path: Path) -> None:
    sgd = {"type": "SGD", "args": {"lr": 0.1, "momentum": 0.9}}
    fixed = {"arch": {"type": "NormNet", "args": {"dropout": 0.0}}, "optimizer": sgd}
    by_ddp = config_of(tmp_path / "ddp", **fixed, trainer__epochs=2)
    shards = saving_shards(config_of(tmp_path / "part", **fixed))
    shards["trainer"]["strategy"]["blocks"] = ["hidden"]
    for config, args in ((by_ddp, ()), (shards, ()), (with_changes(shards, trainer__epochs=2), ("--resume-latest",))):
        assert finish_all(2, "-c", write_config(config), *args, script="norm_train") == [0, 0]
    shards["trainer"]["save_dir"] = str(tmp_path / "whole")
    assert finish_all(2, "-c", write_config(shards), script="norm_train") == [0, 0]
    part, whole = the_run(with_changes(shards, trainer__save_dir=str(tmp_path / "part"))), tmp_path / "whole"
    assert_same_shards(the_run(with_changes(shards, trainer__save_dir=str(whole))), part)
    expected, got = newest(the_run(by_ddp))["model"], Shards(newest(part)).merged()["model"]
    assert_close(expected, got, "model")
    assert got["norm.num_batches_tracked"] == 42
