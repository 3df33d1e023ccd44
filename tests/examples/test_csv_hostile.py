"""A CSV file that is odd, damaged, closed or no file loads as Python reads it, or is told in one line."""

from __future__ import annotations

import csv
import gzip
import io
import logging
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from base import MappedBatches, TensorBatches
from data_loader.csv_data import CsvDataLoader
from example_runs import train
from tables import csv_reader
from tables import float32 as csv_float32
from utils import ConfigError, DataError
from utils.errors import UserError

NOBODY = 65534
ROWS = "1,x,2\n" * 5
LONG = "x" * 200_000


def load(path: object, target: str = "y", **kwargs: Any) -> CsvDataLoader:
    """Load the file at `path`."""
    return CsvDataLoader(str(path), target, 1, **kwargs)


def write(folder: Path, text: str | bytes) -> Path:
    """Write a CSV file; return its path."""
    path = folder / "data.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def values(loader: CsvDataLoader) -> Tensor:
    """Return all rows, features then target."""
    batches = loader.dataset.__getitems__(list(range(len(loader.dataset))))
    return torch.cat(batches, dim=1)


def message_of(error: UserError, kind: type[UserError] = DataError) -> str:
    """Return the text of an error that is one line, of the kind that has the right exit code."""
    assert type(error) is kind
    assert str(error).isprintable()  # on one line, without control characters
    return str(error)


def as_python_reads(text: str, features: list[str], target: str) -> Tensor:
    """Return the columns as Python's csv and float read them, rounded to float32."""
    limit = csv.field_size_limit(1 << 20)
    try:
        header, *rows = [row for row in csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline="")) if row]
    finally:
        csv.field_size_limit(limit)
    columns = [header.index(name) for name in [*features, target]]
    table = np.array([[float(row[i]) for i in columns] for row in rows], dtype=np.float64)
    return torch.from_numpy(table.astype(np.float32))


CELLS = ["+1", "1.", ".5", "1e5", "1E+05", " 1", " 1 ", "\t1", "-0", "1e-400", "1e-45", "3.4028235e38", '"1"', '" 1 "']
CELLS += ['"+1"', '"1"2', "0" * 200 + "1", "0.1000000000000000055511151231257827", "1e22", "123456789012345678"]
ODD_TEXTS = {
    **{f"cell {cell!r:.30}": f"a,note,y\n{cell},x,2\n3,,4\n" for cell in CELLS},
    "one row": "a,y\n1,2",
    "empty name": "a,,y\n1,2,3\n",
    "names twice elsewhere": "a,b,b,y\n1,2,3,4\n",
    "name with a line end": '"a\n(m)",y\n1,2\n',
    "two names with line ends": '"a\n(m)","b\r\n(s)",y\n1,x,2\n',
    "NUL in a note": "a,y,note\n1,2,\0\n",
    "long note": f"a,note,y\n1,{LONG},2\n",
    "long number": f"a,y\n{'0' * 100_000}1,2\n",
    "quotes in the midst": 'a,note,y\n1,5" and 6",2\n',
    "note of two lines": 'a,note,y\n1,"x\ny",2\n3,,4\n',
    "note with commas on each line": 'a,note,y\n1,"Hello, you\nbye, now",2\n3,,4\n',
    "note with a row in it": 'a,note,y\n1,"so\n3,x,4\nno",2\n5,,6\n',
    "note of rows": 'a,note,y\n1,"so\n3,x,4\n5,x,6\n7,x,8\nno",2\n5,,6\n',
    "note that ends in a line end": 'a,y,note\n1,2,"x\n"\n3,4,\n',
    "note that begins with a line end": 'a,y,note\n1,2,"\nx"\n3,4,\n',
    "note of line ends": 'a,y,note\n1,2,"\n\r\n\r"\n3,4,\n',
    "note with an empty line": 'a,y,note\n1,2,"x\n\ny"\n3,4,',
    "note of 500 lines": 'a,note,y\n1,"' + "a line\n" * 500 + '",2\n3,,4\n',
    "last note of two lines": 'a,y,note\n1,2,\n3,4,"x\ny"',
    "empty quoted notes": 'a,note,y\n1,"",2\n3,"",4\n',
    "years for names": "country,2019,y\nA,1,2\n",
}


@pytest.mark.parametrize("text", ODD_TEXTS.values(), ids=ODD_TEXTS)
def test_odd_text_loads_as_python_reads_it(tmp_path: Path, text: str) -> None:
    header = next(csv.reader(io.StringIO(text, newline="")))
    features = [name for name in header if name not in ("y", "note", "b", "b\r\n(s)", "country")]
    loaded = values(load(write(tmp_path, text), features=features))
    expected = as_python_reads(text, features, "y")
    assert torch.equal(loaded, expected)
    assert torch.equal(loaded.signbit(), expected.signbit())


def test_a_note_in_latin_1_does_not_matter_where_it_stands(tmp_path: Path) -> None:
    for num_rows in (1, 2000):  # beyond what is read with the header
        path = write(tmp_path, b"a,note,y\n" + b"1,x,2\n" * num_rows + "1,größe,2\n".encode("latin-1"))
        assert len(load(path, features=["a"]).dataset) == num_rows + 1


NOT_CLOSED = "is its closing quote missing?"
TOLD = {
    "quote in row 5 closed in row 702": (
        "a,y,note\n" + "1,2,x\n" * 3 + '1,2,"x\n' + "1,2,x\n" * 696 + '1,2,x"\n' + "1,2,x\n" * 50,
        f"row 5, column 'note': a value of 698 lines; {NOT_CLOSED}",
    ),
    "quote closed in the next row": (
        'a,note,y\n5,"x,1\n7,z",3\n',
        f"row 2, column 'note': a value of 2 lines; {NOT_CLOSED}",
    ),
    "quote closed by one that opens": (
        'a,note,y\n3,"x,4\n5,"x",6\n7,y,8\n',
        f"row 2, column 'note': a value of 2 lines; {NOT_CLOSED}",
    ),
    "quote over empty quotes": (
        'a,note,y\n1,"x,2\n3,"",4\n5,x",6\n',
        f"row 2, column 'note': a value of 3 lines; {NOT_CLOSED}",
    ),
    "quote closed by nothing": (
        "a,note,y\n" + ROWS + '1,"x,2\n' + ROWS,
        f"row 7, column 'note': a value of 6 lines; {NOT_CLOSED}",
    ),
    "last quote closed by nothing": (
        "a,y,note\n" + "1,2,x\n" * 300_000 + '1,2,"x\n1,2,x\n1,2,x\n',
        f"row 300002, column 'note': a value of 3 lines; {NOT_CLOSED}",
    ),
    "quote closed by nothing for long": (
        'a,note,y\n1,x,2\n1,"x,2\n' + "1,x,2\n" * 300_000,
        f"row 3, column 'note': field larger than field limit (131072); {NOT_CLOSED}",
    ),
    "quote over blank lines": (
        'a,y,note\n1,2,"x\n\n3,4,x\n\n5,6,"\n',
        f"row 2, column 'note': a value of 5 lines; {NOT_CLOSED}",
    ),
    "quote in a number": ('a,y\n"1,2\n3,4\n', f"row 2, column 'a': a value of 2 lines; {NOT_CLOSED}"),
    "quote beyond the header": ('a,y\n1,2,"x\n3,4\n', f"row 2, column 3: a value of 2 lines; {NOT_CLOSED}"),
    "CR LF": ('a,note,y\r\n5,"x,1\r\n7,z",3\r\n', f"row 2, column 'note': a value of 2 lines; {NOT_CLOSED}"),
    "CR": ('a,note,y\r5,"x,1\r7,z",3\r', f"row 2, column 'note': a value of 2 lines; {NOT_CLOSED}"),
    "quote in the header": ('"a,y\n1,2\n3,4\n', "row 1: unexpected end of data; is a closing quote missing?"),
    "quote in the header for long": (
        '"a,y\n' + "1,2\n" * 50_000,
        "row 1: field larger than field limit (131072); is a closing quote missing?",
    ),
    "name that swallows rows": ('y,a,"note\n1,2,b\n3,4,c"\n5,6,d\n', "row 1, column 3: is a closing quote missing?"),
    "text after a quoted name": ('"a"b,y\n1,2\n', "row 1: ',' expected after '\"'; is a closing quote missing?"),
    "line end in a number": ('a,y\n1,2\n"3\n",4\n', "row 3, column 'a': '3\\n' is not a finite number"),
    "no header": ("1,2,3\n4,5,6\n", "row 1: holds only numbers; the names of the columns belong there"),
    "no header, quoted": ('"1","-2.5e3"\n4,5\n', "row 1: holds only numbers; the names of the columns belong there"),
    "one number": ("1", "row 1: holds only numbers; the names of the columns belong there"),
    "blank header": ("\na,y\n1,2\n", "row 1: is empty; the header belongs there"),
    "long number": (f"a,y\n{LONG},2\n", "row 2, column 'a': field larger than field limit (131072)"),
    "long name": (f"{LONG},y\n1,2\n", "row 1: field larger than field limit (131072); is a closing quote missing?"),
    "trailing delimiter": ("a,y,\n1,2,\n", "row 2, column '': '' is not a finite number"),
    "trailing delimiter of the header": ("a,y,\n1,2\n", "row 2: 2 columns, the header has 3"),
    "trailing delimiter of a row": ("a,y\n1,2,\n", "row 2: 3 columns, the header has 2"),
    "spaces": ("a,y\n1,2\n   \n3,4\n", "row 3: 1 columns, the header has 2"),
    "end-of-file mark": ("a,y\n1,2\n\x1a", "row 3: 1 columns, the header has 2"),
    "space in a name": ("a, y\n1,2\n", "has no column 'y'; did you mean ' y'?"),
    "comment": ("# note\na,y\n1,2\n", "has no column 'y'; allowed: # note"),
    "line end in another name": ('"a\nb",c\n1,2\n', "has no column 'y'; allowed: 'a\\nb', c"),
    "UTF-16": ("a,y\n1,2\n".encode("utf-16"), "cannot be read: 'utf-8' codec can't decode byte 0xff in position 0"),
    "UTF-16 unmarked": ("a,y\n1,2\n".encode("utf-16-le"), "has no column 'y'; allowed: '\\x00y\\x00', 'a\\x00'"),
    "gzip": (gzip.compress(b"a,y\n1,2\n" * 99), "cannot be read: 'utf-8' codec can't decode byte"),
    "NULs": (b"\0" * 5000, "has no column 'y'; allowed: '\\x00"),
    "latin-1 in a number": ("a,y\n1ö,2\n".encode("latin-1"), "row 2, column 'a': '1\ufffd' is not a finite number"),
    "many names": (
        ",".join(f"name{i}" for i in range(1000)) + "\n",
        "has no column 'y'; allowed: name0, name1, name10",
    ),
    **{
        f"cell {cell!r}": (f"a,y\n1,2\n{cell},2\n", f"row 3, column 'a': {cell!r} is not a finite number")
        for cell in ["1\xa0", "1\x0b", "1\x0c", "1\x1f", "1\0", "\0", "0x1p3", "1d5", "--1", "'1'", "１", "1e", "1 2"]
    },
}


@pytest.mark.parametrize(("text", "expected"), TOLD.values(), ids=TOLD)
def test_bad_text_is_told_in_one_line_with_its_place(tmp_path: Path, text: str | bytes, expected: str) -> None:
    header = text.splitlines()[0]
    features = ["a"] if header in ("a,note,y", "a,y,note", 'y,a,"note') else None
    path = write(tmp_path, text)
    with pytest.raises(DataError) as caught:
        load(path, features=features)
    message = message_of(caught.value)
    assert message.startswith(f"{path}: {expected}")
    assert len(message) < len(str(path)) + 700


@pytest.mark.parametrize("delimiter", ['"', "\n", "\r", "\0", "", ",,", "ä"])
def test_a_delimiter_that_means_something_else_is_refused(tmp_path: Path, delimiter: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, "a,y\n1,2\n"), delimiter=delimiter)
    expected = f"data_loader.args.delimiter: {delimiter!r}; give one character, no quote or line end"
    assert message_of(caught.value, ConfigError) == expected


# What is not a file, or closed.


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def _loop(path: Path) -> None:
    path.symlink_to(path)


def _dangling(path: Path) -> None:
    path.symlink_to(path.with_name("nothing"))


def _zero(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _directory(path: Path) -> None:
    path.mkdir()


NO_FILES: dict[str, tuple[Callable[[Path], None], str]] = {
    "directory": (_directory, "Is a directory"),
    "pipe": (_fifo, "is a pipe or a device, not a file"),
    "device": (_zero, "is a pipe or a device, not a file"),
    "socket": (_socket, "is a pipe or a device, not a file"),
    "link to itself": (_loop, "Too many levels of symbolic links"),
    "link to nothing": (_dangling, "No such file or directory"),
    "nothing": (lambda path: None, "No such file or directory"),
}


@pytest.mark.parametrize(("make", "reason"), NO_FILES.values(), ids=NO_FILES)
def test_what_is_no_file_is_told_and_keeps_nobody_waiting(
    make: Callable[[Path], None], reason: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    make(Path("data.csv"))
    with pytest.raises(DataError) as caught:
        load("data.csv")
    assert message_of(caught.value) == f"data.csv: cannot be read: {reason}"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("a\0b.csv", "embedded null byte"),
        ("x" * 5000, "File name too long"),
        ("\ud800.csv", "'utf-8' codec can't encode character"),
        ("/dev/null", "is a pipe or a device, not a file"),
        ("", "Is a directory"),
    ],
)
def test_a_path_that_cannot_be_one_is_told(path: str, reason: str) -> None:
    with pytest.raises(DataError) as caught:
        load(path)
    assert f"cannot be read: {reason}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("head", [b"", b"a,y\n1,2\n"])
def test_a_file_without_line_ends_is_told_before_all_of_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: bytes
) -> None:
    monkeypatch.setattr(csv_reader, "MAX_LINE_BYTES", 1 << 20)
    os.truncate(write(tmp_path, head), 1 << 36)  # sparse: 64 GiB of NULs
    with pytest.raises(DataError, match=r"has no line end in 1048576 bytes after byte 4|row 1: field larger"):
        load(tmp_path / "data.csv", cache_dir=tmp_path)


@pytest.fixture
def open_dir() -> Iterator[Path]:
    """Return a folder that every user may look into, unlike `tmp_path`."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Be a user for whom permissions hold, where the test runs as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(
    ("closed", "mode", "expected"),
    [
        ("data.csv", 0o000, "data.csv: cannot be read: Permission denied"),
        (".", 0o000, "data.csv: cannot be read: Permission denied"),
        ("cache", 0o000, "cache: cannot be written to: Permission denied"),
        ("cache", 0o555, "cache: cannot be written to: Permission denied"),
        ("table", 0o000, "Permission denied"),
    ],
)
def test_closed_data_is_told_to_an_ordinary_user(open_dir: Path, closed: str, mode: int, expected: str) -> None:
    path, cache = write(open_dir, "a,y\n1,2\n"), open_dir / "cache"
    if closed == "table":
        load(path, max_memory=1e-9, cache_dir=cache)
        target = next(cache.glob("*.npy"))
    else:
        cache.mkdir()
        target = open_dir / closed
    before = target.stat().st_mode
    with ordinary_user():
        load(path)
    target.chmod(mode)
    try:
        with ordinary_user(), pytest.raises(DataError) as caught:
            load(path, max_memory=1e-9, cache_dir=cache)
    finally:
        target.chmod(before)
    assert expected in message_of(caught.value)
    assert str(open_dir) in str(caught.value)


@pytest.mark.parametrize("cache_dir", ["a\0b", "x" * 5000, "/dev/null/cache", "\ud800"])
def test_a_cache_that_cannot_be_is_told(tmp_path: Path, cache_dir: str) -> None:
    with pytest.raises(DataError, match=r"cannot be written to: "):
        load(write(tmp_path, "a,y\n1,2\n"), max_memory=1e-9, cache_dir=cache_dir)


# Digits that float32 does not hold.

LOST = {
    "2**24 + 1": [16777217, 1],
    "-(2**24 + 1)": [-16777217, 1],
    "ids": [123456789, 987654321, 5],
    "Unix times": [1700000000 + i for i in range(100)],
    "Unix times in ms": [1700000000123 + i * 1000 for i in range(100)],
    "2**53 + 1": [2**53 + 1, 1],
    "20 digits": [10**19 + 1, 10**19 + 7],
    "Julian dates": [2460000 + i / 100 for i in range(100)],
    "1e6 and a little": [1e6 + i / 1000 for i in range(100)],
    "1 and less": [1 + i * 1e-9 for i in range(100)],
    "tiny differences of tiny numbers": [1e-30 * (1 + i * 1e-9) for i in range(100)],
    "late": [0.5, 1] * 5000 + [16777217],
}
HELD = {
    "2**24": [16777216, -16777216],
    "even numbers": [16777218, 33554432],
    "1e5 and one": [100000, 100001],
    "constants": [0.1, 0.1],
    "zeros": [0, 0],
    "fractions": [0.1, 0.2, 0.3],
    "signs": [-0.1, 0.1],
    "normal numbers": np.random.default_rng(0).normal(size=500).tolist(),
    "years": [1990, 2024],
    "one row": [0.3],
    "multiples of 128": [1700000000, 1700000128],
}


@pytest.mark.parametrize("as_cached", [False, True])
@pytest.mark.parametrize("column", LOST.values(), ids=LOST)
def test_numbers_that_float32_moves_are_warned_of_by_column(
    column: list[float], as_cached: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path, "t,y\n" + "".join(f"{value!r},1.5\n" for value in column))
    options: dict[str, Any] = {"max_memory": 1e-9, "cache_dir": tmp_path / "cache"} if as_cached else {}
    for _ in range(2):  # a table that is there already is told of alike
        caplog.clear()
        load(path, **options)
        [warning] = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert warning.message.startswith(f"{path}: column 't': its numbers, from ")
        told = float(warning.message.split("by up to ")[1].split()[0])
        lost = max(abs(Fraction(value) - Fraction(float(np.float32(float(value))))) for value in column)
        assert told == pytest.approx(float(lost), rel=0.01)


@pytest.mark.parametrize("column", HELD.values(), ids=HELD)
def test_numbers_that_float32_holds_or_rounds_as_ever_are_not_warned_of(
    column: list[float], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load(write(tmp_path, "t,y\n" + "".join(f"{value!r},1.5\n" for value in column)))
    assert caplog.records == []


# Files that change.


def _rewrite(path: Path) -> None:
    """Change the values in place, and keep size and time of change."""
    status = path.stat()
    text = path.read_bytes().replace(b"1.25", b"1.75")
    with open(path, "r+b") as file:
        file.write(text)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _replace(path: Path) -> None:
    """Put another file in the place, of the same size and time of change."""
    other = path.with_name("other.csv")
    shutil.copy2(path, other)
    status = path.stat()
    other.write_bytes(path.read_bytes().replace(b"1.25", b"1.75"))
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(other, path)


def _append(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(b"1.25,2\n")


def _halve(path: Path) -> None:
    os.truncate(path, 4 + 7 * 250)  # half of its rows


CHANGES = [_rewrite, _replace, _append, _halve, Path.unlink]


@pytest.mark.parametrize("max_memory", [1.0, 1e-9])
@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changes_while_it_is_read_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None], max_memory: float
) -> None:
    monkeypatch.setattr(csv_reader, "BLOCK_BYTES", 100)
    path = write(tmp_path, "a,y\n" + "1.25,2\n" * 500)
    as_rows = csv_float32.as_rows
    changes = iter([change])

    def change_and_read(table: Any) -> Any:
        for once in changes:
            time.sleep(0.02)  # the system's clock of changes is as coarse
            once(path)
        return as_rows(table)

    monkeypatch.setattr(csv_float32, "as_rows", change_and_read)
    with pytest.raises(DataError) as caught:
        load(path, max_memory=max_memory, cache_dir=tmp_path / "cache")
    assert message_of(caught.value) == f"{path}: was changed while it was read"
    assert [found for found in tmp_path.glob("cache/*") if found.name != ".lock"] == []


@pytest.mark.parametrize("change", CHANGES[:-1])
def test_the_table_of_a_file_that_was_changed_is_made_again(tmp_path: Path, change: Callable[[Path], None]) -> None:
    path = write(tmp_path, "a,y\n" + "1.25,2\n" * 50_000)  # more than is sampled
    options: dict[str, Any] = {"max_memory": 1e-9, "cache_dir": tmp_path / "cache"}
    before = load(path, **options)
    time.sleep(0.02)
    change(path)
    after = load(path, **options)
    assert after.fingerprint() != before.fingerprint()
    assert torch.equal(values(after), values(load(path)))


# Tables that are damaged.


def _zero_page(path: Path) -> None:
    with open(path, "r+b") as file:
        file.seek(4096)
        file.write(bytes(4096))


def _flip_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def _lengthen(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(b"more")


def _shorten(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def _as_double(path: Path) -> None:
    np.save(path, np.load(path).astype(np.float64))


def _flatten(path: Path) -> None:
    np.save(path, np.load(path).ravel())


def _fewer_rows(path: Path) -> None:
    np.save(path, np.load(path)[1:])


def _no_header(path: Path) -> None:
    path.write_bytes(b"\0" * path.stat().st_size)


def _as_objects(path: Path) -> None:
    np.save(path, np.array([{}]), allow_pickle=True)


DAMAGES = [_zero_page, _flip_bit, _lengthen, _shorten, _as_double, _flatten, _fewer_rows, _no_header, _as_objects]


@pytest.fixture
def damaged(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Return the path of a CSV file, whose table in `cache` is damaged as the parameter says."""
    numbers = np.random.default_rng(0).normal(size=(5000, 2))
    path = write(tmp_path, "a,y\n" + "".join(f"{a},{y}\n" for a, y in numbers.tolist()))
    load(path, max_memory=1e-9, cache_dir=tmp_path / "cache")
    request.param(next(tmp_path.glob("cache/*.npy")))
    return path


@pytest.mark.parametrize("damaged", DAMAGES, indirect=True)
def test_a_damaged_table_is_told_before_it_is_trained_or_tested_on(damaged: Path) -> None:
    options: dict[str, Any] = {"max_memory": 1e-9, "cache_dir": damaged.parent / "cache", "test_split": 0.1}
    with pytest.raises(DataError, match=r"cache/.*\.npy: .*; delete it, and it is made again") as caught:
        load(damaged, **options).fingerprint()
    message_of(caught.value)
    with pytest.raises(DataError, match="delete it, and it is made again"):
        load(damaged, training=False, **options)
    next(damaged.parent.glob("cache/*.npy")).unlink()
    assert torch.equal(values(load(damaged, **options)), values(load(damaged)))


@pytest.mark.parametrize("damaged", [_zero_page], indirect=True)
def test_batches_of_a_damaged_table_end_when_it_is_known(damaged: Path) -> None:
    dataset = load(damaged, max_memory=1e-9, cache_dir=damaged.parent / "cache").dataset
    assert isinstance(dataset, MappedBatches)
    dataset._check.join()
    with pytest.raises(DataError, match="its values are damaged"):
        dataset.__getitems__([0])


@pytest.mark.parametrize("damaged", [_zero_page], indirect=True)
def test_a_run_on_a_damaged_table_leaves_no_trace(damaged: Path, tmp_path: Path) -> None:
    args = {"path": str(damaged), "target": "y", "batch_size": 32, "max_memory": 1e-9}
    config = {
        "name": "Csv",
        "n_gpu": 0,
        "arch": {"type": "PolynomialRegression", "args": {"degree": 1}},
        "data_loader": {"type": "CsvDataLoader", "args": args | {"cache_dir": str(damaged.parent / "cache")}},
        "optimizer": {"type": "Adam", "args": {"lr": 0.01}},
        "loss": "mse_loss",
        "lr_scheduler": {"type": "StepLR", "args": {"step_size": 1}},
        "trainer": {"epochs": 1, "save_dir": str(tmp_path / "runs")},
    }
    with pytest.raises(UserError, match="its values are damaged"):
        train(config)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["given.json"]


def test_in_memory_and_mapped_tables_of_one_text_are_equal(tmp_path: Path) -> None:
    path = write(tmp_path, 'a,note,y\n1,"x\ny",2\n3,,4\n')
    memory, mapped = load(path, features=["a"]), load(path, features=["a"], max_memory=1e-9, cache_dir=tmp_path)
    assert (type(memory.dataset), type(mapped.dataset)) == (TensorBatches, MappedBatches)
    assert torch.equal(values(memory), values(mapped))
