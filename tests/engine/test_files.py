"""Files are written whole or not at all, and JSON comes back as it was written."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import stat
from pathlib import Path

import pytest

from faults import CONTEXT, exit_code
from utils import ensure_dir, fsync_dir, read_json, write_atomic, write_json


def names(directory: Path) -> list[str]:
    """Return the names of all files, hidden ones too."""
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize("data", [b"", b"new", bytes(range(256)) * 5000])
@pytest.mark.parametrize("old", [None, b"what stood there before"])
def test_atomic_write_leaves_the_data_and_no_other_file(tmp_path: Path, data: bytes, old: bytes | None) -> None:
    path = tmp_path / "file.bin"
    if old is not None:
        path.write_bytes(old)
    write_atomic(path, data)
    assert path.read_bytes() == data
    assert names(tmp_path) == ["file.bin"]


def _write_beyond_the_limit(path: Path) -> None:
    """Meet the file size limit of the process, which to a program is what a full disk is: a write that fails."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    try:
        write_atomic(path, b"n" * 100_000)
    except OSError as error:
        os._exit(error.errno or 0)


@pytest.mark.parametrize("old", [None, b"old"])
def test_a_write_that_fails_in_the_middle_leaves_what_was_there(tmp_path: Path, old: bytes | None) -> None:
    path = tmp_path / "file.bin"
    if old is not None:
        path.write_bytes(old)
    process = CONTEXT.Process(target=_write_beyond_the_limit, args=(path,))
    process.start()
    assert exit_code(process) == errno.EFBIG
    assert names(tmp_path) == ([] if old is None else ["file.bin"])
    if old is not None:
        assert path.read_bytes() == old


def test_a_write_onto_a_directory_fails_and_leaves_it(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(OSError, match=r"[Ii]s a directory|[Ff]ile exists|Access is denied"):
        write_atomic(tmp_path / "there", b"data")
    assert names(tmp_path) == ["there"]
    assert stat.S_ISDIR((tmp_path / "there").stat().st_mode)


def test_a_write_into_a_missing_directory_fails_and_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomic(tmp_path / "missing" / "file", b"data")
    assert names(tmp_path) == []


def test_json_round_trip_keeps_values_and_the_order_of_keys(tmp_path: Path) -> None:
    content = {"z": [1, 2.5, None, True], "a": {"é": "日本", "empty": {}}, "lr": 1e-4, "long": 2**60}
    write_json(content, tmp_path / "content.json")
    read = read_json(str(tmp_path / "content.json"))
    assert read == content
    assert list(read) == list(content)


def test_json_is_indented_and_ends_with_a_newline(tmp_path: Path) -> None:
    write_json({"a": 1}, tmp_path / "content.json")
    assert (tmp_path / "content.json").read_text() == '{\n    "a": 1\n}\n'


def test_content_that_json_cannot_hold_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "content.json"
    write_json({"a": 1}, path)
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_json({"a": object()}, path)
    assert json.loads(path.read_text()) == {"a": 1}
    assert names(tmp_path) == ["content.json"]


def test_ensure_dir_makes_parents_and_takes_what_is_there(tmp_path: Path) -> None:
    ensure_dir(str(tmp_path / "a" / "b"))
    (tmp_path / "a" / "b" / "file").touch()
    ensure_dir(tmp_path / "a" / "b")
    assert names(tmp_path / "a" / "b") == ["file"]


def test_fsync_dir_closes_what_it_opens(tmp_path: Path) -> None:
    before = os.open(tmp_path, os.O_RDONLY)
    os.close(before)
    fsync_dir(tmp_path)
    after = os.open(tmp_path, os.O_RDONLY)  # the lowest free number: the same, unless fsync_dir kept one
    os.close(after)
    assert after == before
