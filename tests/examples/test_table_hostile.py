"""A hundred odd, bad or damaged tables: each loads as it should, or is refused in one line with row and column."""

from __future__ import annotations

import gzip
import math
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from data_loader.table_data import TableDataLoader
from tables import row_encoder
from utils import DataError
from utils.errors import UserError

NUMBERS: dict[str, Any] = {"columns": {"a": "number"}}
LABELS: dict[str, Any] = {"columns": {"c": "category"}}
GAPS: dict[str, Any] = {"columns": {"a": {"kind": "number", "missing": "mean"}}, "missing_values": ["", "NA", "?"]}
LABEL_GAPS: dict[str, Any] = {"columns": {"c": {"kind": "category", "missing": "most_frequent"}}}
CLASS: dict[str, Any] = {"columns": {"a": "number", "y": "class"}}
BOOLS: dict[str, Any] = {"columns": {"a": "bool"}}
DAYS: dict[str, Any] = {"columns": {"a": {"kind": "date", "parts": ["days"]}}}
GERMAN: dict[str, Any] = {"columns": {"a": {"kind": "date", "parts": ["day"], "format": "%d.%m.%Y"}}}
NAMED: dict[str, Any] = {**NUMBERS, "header": False, "names": ["a", "y"]}
BLANKS: dict[str, Any] = {**NUMBERS, "delimiter": "whitespace"}
NAN = math.nan
LONG = "x" * 200_000

# name: (text or bytes, arguments, rows of features and target, or the end of the message)
CASES: dict[str, tuple[str | bytes, dict[str, Any], list[list[float]] | str]] = {
    # How the file is written.
    "BOM": (b"\xef\xbb\xbfa,y\n1,2\n", NUMBERS, [[1, 2]]),
    "BOM without header": (b"\xef\xbb\xbf1,2\n", NAMED, [[1, 2]]),
    "BOM, encoding given": (b"\xef\xbb\xbfa,y\n1,2\n", {**NUMBERS, "encoding": "utf-8-sig"}, [[1, 2]]),
    "UTF-16 unsaid": ("a,y\n1,2\n".encode("utf-16"), NUMBERS, "it looks like UTF-16: TableDataLoader takes `encoding`"),
    "UTF-16": ("a,y\n1,2\n".encode("utf-16"), {**NUMBERS, "encoding": "utf-16"}, [[1, 2]]),
    "UTF-16 without mark": ("a,y\n1,2\n".encode("utf-16-le"), NUMBERS, "has no column 'a'"),
    "UTF-16-LE": ("a,y\n1,2\n".encode("utf-16-le"), {**NUMBERS, "encoding": "utf-16-le"}, [[1, 2]]),
    "UTF-16 as UTF-8": (b"a,y\n1,2\n", {**NUMBERS, "encoding": "utf-16"}, "is not utf-16 after row 0"),
    "UTF-32": ("a,y\n1,2\n".encode("utf-32"), {**NUMBERS, "encoding": "utf-32"}, [[1, 2]]),
    "UTF-32 unsaid": ("a,y\n1,2\n".encode("utf-32"), NUMBERS, "it looks like UTF-32"),
    "latin-1 as UTF-8": (
        "c,y\nUlm,1\nKöln,2\n".encode("latin-1"),
        LABELS,
        "row 3, column 'c': 'K\ufffdln' is not UTF-8",
    ),
    "latin-1": ("c,y\nUlm,1\nKöln,2\n".encode("latin-1"), {**LABELS, "encoding": "latin-1"}, [[2, 1], [1, 2]]),
    "latin-1 in the header": ("ä,a,y\n1,2,3\n".encode("latin-1"), NUMBERS, "as latin-1 it reads 'ä,a,y"),
    "latin-1 in another column": ("x,a,y\nä,2,3\n".encode("latin-1"), NUMBERS, [[2, 3]]),
    "not ASCII": ("c,y\nKöln,2\n", {**LABELS, "encoding": "ascii"}, "is not ascii after row 0"),
    "not cp1252": (b"a,y\n1,2\n\x81,3\n", {**NUMBERS, "encoding": "cp1252"}, "is not cp1252 after row"),
    "gzip": (gzip.compress(b"a,y\n1,2\n"), NUMBERS, "it looks like gzip: decompress it"),
    "zip": (b"PK\x03\x04\xff\xff\n", NUMBERS, "it looks like a zip file, as an Excel workbook is"),
    "CR": ("a,y\r1,2\r3,4\r", NUMBERS, [[1, 2], [3, 4]]),
    "CR LF": ("a,y\r\n1,2\r\n", NUMBERS, [[1, 2]]),
    "mixed line ends": ("a,y\n1,2\r\n3,4\r5,6", NUMBERS, [[1, 2], [3, 4], [5, 6]]),
    "no last line end": ("a,y\n1,2", NUMBERS, [[1, 2]]),
    "blank lines": ("a,y\n\n1,2\n\n\n3,4\n\n", NUMBERS, [[1, 2], [3, 4]]),
    "NUL in a number": ("a,y\n1\0,2\n", NUMBERS, "row 2, column 'a': '1\\x00' is not a finite number"),
    "NUL in a label": ("c,y\nx\0,2\nx,3\n", LABELS, [[2, 2], [1, 3]]),
    "NULs alone": (b"\0" * 5000, NUMBERS, "has no column 'a'"),
    "end-of-file mark": ("a,y\n1,2\n\x1a", NUMBERS, "row 3: 1 columns, the header has 2"),
    # The header.
    "empty": ("", NUMBERS, "is empty"),
    "header alone": ("a,y\n", NUMBERS, "has a header but no rows"),
    "header alone, auto": ("a,y\n", {}, "has a header but no rows"),
    "blank header": ("\na,y\n1,2\n", NUMBERS, "row 1: is empty; the header belongs there"),
    "no header": ("1,2\n3,4\n", NUMBERS, "row 1: holds only numbers; the names of the columns belong there"),
    "names given": ("1,2\n3,4\n", NAMED, [[1, 2], [3, 4]]),
    "names for a header": ("a,y\n3,4\n", NAMED, "row 1, column 'a': 'a' is not a finite number"),
    "names of labels for a header": (
        "c,y\nx,4\n",
        {**LABELS, "header": False, "names": ["c", "y"]},
        "row 1, column 'y': 'y' is not a finite number",
    ),
    "too few names": ("1,2,3\n", NAMED, "row 1: 3 columns, but 2 names are given"),
    "too many names": ("1\n", NAMED, "row 1: 1 columns, but 2 names are given"),
    "names, another delimiter": ("1;2\n", NAMED, "it looks like ';' is the delimiter"),
    "names, empty": ("", NAMED, "is empty"),
    "duplicate header": ("a,a,y\n1,2,3\n", NUMBERS, "has 2 columns called 'a'"),
    "duplicate elsewhere": ("b,b,a,y\n1,2,3,4\n", NUMBERS, [[3, 4]]),
    "missing column": ("b,y\n1,2\n", NUMBERS, "has no column 'a'; allowed: b, y"),
    "misspelled column": ("A,y\n1,2\n", NUMBERS, "has no column 'a'; did you mean 'A'?"),
    "blank in a name": (" a,y\n1,2\n", NUMBERS, "has no column 'a'; did you mean ' a'?"),
    "no target": ("a,z\n1,2\n", NUMBERS, "has no column 'y'"),
    "long name": (f"{LONG},y\n1,2\n", NUMBERS, "row 1: field larger than field limit"),
    # Delimiters.
    "semicolon unsaid": ("a;y\n1;2\n", NUMBERS, "it looks like ';' is the delimiter: give `delimiter`"),
    "semicolon": ("a;y\n1;2\n", {**NUMBERS, "delimiter": ";"}, [[1, 2]]),
    "tab unsaid": ("a\ty\n1\t2\n", NUMBERS, "it looks like '\\t' is the delimiter"),
    "tab": ("a\ty\n1\t2\n", {**NUMBERS, "delimiter": "\t"}, [[1, 2]]),
    "pipe": ("a|y\n1|2\n", {**NUMBERS, "delimiter": "|"}, [[1, 2]]),
    "blank": ("a y\n1 2\n", {**NUMBERS, "delimiter": " "}, [[1, 2]]),
    "runs of blanks unsaid": ("a    y\n1    2\n", NUMBERS, "it looks like runs of blanks are the delimiter"),
    "runs of blanks": ("  a    y\n 1 \t 2  \n3 4\n", BLANKS, [[1, 2], [3, 4]]),
    "runs of blanks, quotes": ('c   y\n"a  b"  1\n"x"   2\n', {**LABELS, "delimiter": "whitespace"}, [[1, 1], [2, 2]]),
    "runs of blanks, CR LF": ("a  y \r\n 1  2 \r\n", BLANKS, [[1, 2]]),
    "runs of blanks, ragged": ("a  y\n1  2\n1 2 3\n", BLANKS, "row 3: 3 columns, the header has 2"),
    "runs of blanks, a word": ("a  y\n1  2\n1 x\n", BLANKS, "row 3, column 'y': 'x' is not a finite number"),
    "trailing delimiter": ("a,y,\n1,2,\n", NUMBERS, [[1, 2]]),
    "trailing delimiter in the header": ("a,y,\n1,2\n", NUMBERS, "row 2: 2 columns, the header has 3"),
    "trailing delimiter in a row": ("a,y\n1,2,\n", NUMBERS, "row 2: 3 columns, the header has 2"),
    # Rows.
    "ragged": ("a,y\n1,2\n3\n", NUMBERS, "row 3: 1 columns, the header has 2"),
    "ragged far down": ("a,y\n" + "1,2\n" * 200_000 + "3\n", NUMBERS, "row 200002: 1 columns, the header has 2"),
    "a word far down": ("a,y\n" + "1,2\n" * 200_000 + "x,2\n", NUMBERS, "row 200002, column 'a': 'x' is not a finite"),
    "unclosed quote": ('c,y\nx,1\n"x,2\nx,3\n', LABELS, "row 3, column 'c': a value of 2 lines; is its closing quote"),
    "quote closed rows later": (
        'c,y\n"x,1\nz,2\nx",3\n',
        LABELS,
        "row 2, column 'c': a value of 3 lines; is its closing",
    ),
    "unclosed quote, auto": ('c,y\nx,1\n"x,2\nx,3\n', {}, "is its closing quote missing?"),
    "label of two lines": ('c,y\n"x\nz",1\nb,2\n', LABELS, [[2, 1], [1, 2]]),
    "huge label": (f"c,y\n{LONG},1\nb,2\n", LABELS, [[2, 1], [1, 2]]),
    "huge label that is no number": (
        f"a,y\n1,1\n{LONG},2\n",
        NUMBERS,
        "row 3, column 'a': field larger than field limit",
    ),
    "one row": ("a,y\n1,2\n", NUMBERS, [[1, 2]]),
    "quoted labels": ('c,y\n"x",1\nx,2\n"x ",3\n', LABELS, [[1, 1], [1, 2], [1, 3]]),
    "label with a delimiter": ('c,y\n"x,z",1\nx,2\n', LABELS, [[2, 1], [1, 2]]),
    "formula as a number": ("a,y\n=1+1,2\n", NUMBERS, "row 2, column 'a': '=1+1' is not a finite number"),
    "formula as a label": ('c,y\n"=cmd()",2\nb,3\n', LABELS, [[1, 2], [2, 3]]),
    # Numbers.
    "infinite": ("a,y\ninf,2\n", NUMBERS, "row 2, column 'a': 'inf' is not a finite number"),
    "too large": ("a,y\n1e400,2\n", NUMBERS, "row 2, column 'a': '1e400' is not a finite number"),
    "too large for float32": ("a,y\n1e39,2\n", NUMBERS, "row 2, column 'a': '1e39' is not a finite number"),
    "too large beside gaps": ("a,y\n,1\n1e39,2\n", GAPS, "row 3, column 'a': '1e39' is not a finite number"),
    "NaN": ("a,y\nnan,2\n", NUMBERS, "row 2, column 'a': 'nan' is not a finite number"),
    "NaN beside gaps": ("a,y\n,1\nnan,2\n", GAPS, "row 3, column 'a': 'nan' is not a finite number"),
    "NaN named": ("a,y\nnan,2\n1,3\n", {**GAPS, "missing_values": ["nan"]}, [[NAN, 2], [1, 3]]),
    "decimal comma": ('a,y\n"1,5",2\n', NUMBERS, "row 2, column 'a': '1,5' is not a finite number"),
    "thousands separator": ('a,y\n"1,500",2\n', NUMBERS, "row 2, column 'a': '1,500' is not a finite number"),
    "blanks around": ("a,y\n 1 ,2 \n", NUMBERS, [[1, 2]]),
    "no-break space": ("a,y\n1\xa0,2\n", NUMBERS, "row 2, column 'a': '1\\xa0' is not a finite number"),
    "hexadecimal": ("a,y\n0x10,2\n", NUMBERS, "row 2, column 'a': '0x10' is not a finite number"),
    "underscore": ("a,y\n1_000,2\n", NUMBERS, "row 2, column 'a': '1_000' is not a finite number"),
    "other digits": ("a,y\n٣,2\n", NUMBERS, "row 2, column 'a': '٣' is not a finite number"),
    "currency": ("a,y\n$5,2\n", NUMBERS, "row 2, column 'a': '$5' is not a finite number"),
    # What is missing.
    "gap": ("a,y\n1,2\n,3\n", NUMBERS, "row 3, column 'a': '' is a missing value; give its column a policy, `missing`"),
    "gap in quotes": ('a,y\n1,2\n"",3\n', NUMBERS, "row 3, column 'a': '' is a missing value"),
    "gaps": ("a,y\n1,2\n,3\nNA,4\n?,5\n ?,6\n", GAPS, [[1, 2], [NAN, 3], [NAN, 4], [NAN, 5], [NAN, 6]]),
    "unnamed gap": ("a,y\n1,2\n-,3\n", GAPS, "row 3, column 'a': '-' is not a finite number"),
    "gap of a label": ("c,y\nx,2\n,3\n", LABELS, "row 3, column 'c': '' is a missing value"),
    "gaps of labels": ("c,y\nx,2\n,3\n", LABEL_GAPS, [[1, 2], [NAN, 3]]),
    "all gaps": ("a,y\n,2\n?,3\n", GAPS, "column 'a': has no value in the training split"),
    "all gaps of labels": ("c,y\n,2\n,3\n", LABEL_GAPS, "column 'c': has no value in the training split"),
    "no target in a row": ("a,y\n1,2\n3,\n", GAPS, "row 3, column 'y': '' is a missing value"),
    "NaN as target": ("a,y\n1,nan\n", NUMBERS, "row 2, column 'y': 'nan' is not a finite number"),
    "no class in a row": ("a,y\n1,x\n2,z\n3,\n", CLASS, "row 4, column 'y': '' is a missing value"),
    # Other kinds.
    "classes": ("a,y\n1,x\n2,z\n3,x\n", CLASS, [[1, 0], [2, 1], [3, 0]]),
    "one class": ("a,y\n1,x\n2,x\n", CLASS, "column 'y': the training split has one class alone, 'x'"),
    "bools": ("a,y\nTRUE,1\nno,2\n0,3\nT,4\n", BOOLS, [[1, 1], [0, 2], [0, 3], [1, 4]]),
    "no bool": ("a,y\nyes,1\nmaybe,2\n", BOOLS, "row 3, column 'a': 'maybe' is not true or false, yes or no, 1 or 0"),
    "dates": ("a,y\n1970-01-02,1\n1969-12-31T23:00:00Z,2\n", DAYS, [[1, 1], [-1, 2]]),
    "no date": ("a,y\n2023-02-28,1\n2023-02-29,2\n", DAYS, "row 3, column 'a': '2023-02-29' is not a date such as"),
    "dates of a format": ("a,y\n31.01.2020,1\n1.2.2020,2\n", GERMAN, [[31, 1], [1, 2]]),
    "no date of a format": ("a,y\n30.02.2020,1\n", GERMAN, "row 2, column 'a': '30.02.2020' is not a date %d.%m.%Y"),
    "constant": ("a,y\n5,1\n5,2\n", NUMBERS, [[5, 1], [5, 2]]),
}


def load(path: Path, **kwargs: Any) -> TableDataLoader:
    """Load the file with target y."""
    return TableDataLoader(str(path), "y", 1, cache_dir=str(path.parent / "cache"), **kwargs)


def refused(load_it: Callable[[], Any]) -> str:
    """Return the message, of one line, that loading ends in."""
    with pytest.raises(DataError) as caught:
        load_it()
    assert isinstance(caught.value, UserError)
    assert str(caught.value).isprintable() or "\ufffd" in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_there_are_a_hundred() -> None:
    assert len(CASES) >= 100


@pytest.mark.parametrize(("text", "kwargs", "expected"), CASES.values(), ids=CASES)
def test_a_table_loads_as_it_should_or_is_refused_with_its_place(
    tmp_path: Path, text: str | bytes, kwargs: dict[str, Any], expected: list[list[float]] | str
) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    if isinstance(expected, str):
        message = refused(partial(load, path, **kwargs))
        assert message.startswith(f"{path}: ")
        assert expected in message
        assert len(message) < len(str(path)) + 900
    else:
        inputs, targets = load(path, **kwargs).dataset.__getitems__(list(range(len(expected))))
        rows = torch.cat([inputs, targets.view(len(targets), -1).float()], dim=1)
        torch.testing.assert_close(rows, torch.tensor(expected, dtype=torch.float32), rtol=0, atol=0, equal_nan=True)
    assert [found.name for found in tmp_path.rglob("*") if found.name.startswith(".plain-")] == []


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: None])
def test_what_is_no_file_is_refused(make: Callable[[Path], None], encoding: str, tmp_path: Path) -> None:
    make(tmp_path / "data.csv")
    reasons = ("Is a directory", "is a pipe or a device", "No such file or directory")
    assert refused(lambda: load(tmp_path / "data.csv", encoding=encoding, **NUMBERS)).count("cannot be read") == 1
    assert any(reason in refused(lambda: load(tmp_path / "data.csv", **NUMBERS)) for reason in reasons)


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data.csv"
    path.write_text("a,y\n1,2\n")
    encode = row_encoder.RowEncoder.rows

    def grow_and_encode(encoder: Any, table: Any) -> Any:
        with open(path, "a") as file:
            file.write("3,4\n")
        return encode(encoder, table)

    monkeypatch.setattr(row_encoder.RowEncoder, "rows", grow_and_encode)
    assert refused(lambda: load(path, **NUMBERS)) == f"{path}: was changed while it was read"
