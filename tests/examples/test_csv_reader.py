"""A CSV file reads the same however it is cut into blocks, and a mistake is told with the same row."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from tables import csv_reader
from tables.csv_reader import CsvReader
from utils import DataError

BLOCK_SIZES = [1, 7, 40, 1 << 20]
QUOTED = "".join(
    f'{i},"{"line " * (i % 3)}\n{i},{i},{i}\nof ""{i}""",{-i}\n' for i in range(50)
)  # looks like good rows
TEXTS = {
    "plain": "a,b,y\n" + "".join(f"{i},2.5,{-i}\n" for i in range(100)),
    "no final newline": "a,b,y\n1,2,3\n4,5,6",
    "CR LF": "a,b,y\r\n" + "".join(f"{i},2.5,{-i}\r\n" for i in range(100)),
    "CR": "a,b,y\r" + "".join(f"{i},2.5,{-i}\r" for i in range(100)),
    "blank lines": "a,b,y\n\n\n" + "".join(f"{i},2.5,{-i}\n\n\r\n" for i in range(100)) + "\n\n",
    "byte order mark": "\ufeffa,größe,y\n1,2,3\n4,5,6\n",
    "quoted header": '\ufeff"a","b ""\r\n1,2,3\nb",y\n1,2,3\n4,5,6\n',
    "quoted breaks": "a,b,y\n" + QUOTED,
    "quotes late": "a,b,y\n" + "".join(f"{i},2.5,{-i}\n" for i in range(100)) + QUOTED,
    "quotes in the last row": "a,b,y\n" + "1,2,3\n" * 50 + '4,"5",6',
    "stray quotes": "a,b,y\n" + "".join(f'{i},{i} feet 5",{-i}\n' for i in range(50)),
}


def read(path: Path, text: str, columns: list[str]) -> np.ndarray:
    """Return the columns of `text` as they are read from a file."""
    path.write_text(text, encoding="utf-8", newline="")
    return np.concatenate(list(CsvReader(path, ",").blocks(columns)))


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("block_bytes", BLOCK_SIZES)
def test_any_blocks_give_what_pythons_csv_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, block_bytes: int
) -> None:
    monkeypatch.setattr(
        csv_reader, "BLOCK_BYTES", max(block_bytes, 200 if '"' in text else 1)
    )  # open_csv: a row a block
    rows = [row for row in csv.reader(text.removeprefix("\ufeff").splitlines(keepends=True)) if row][1:]
    expected = np.array([[row[2], row[0]] for row in rows], dtype=np.float64).astype(np.float32)
    np.testing.assert_array_equal(read(tmp_path / "data.csv", text, ["y", "a"]), expected)


MISTAKES = {
    "at the end": ("a,y\n" + "1,2\n" * 99 + "1,x\n", "row 101, column 'y': 'x' is not a finite number"),
    "not finite": ("a,y\n" + "1,2\n" * 99 + "inf,1\n1,2\n", "row 101, column 'a': 'inf' is not a finite number"),
    "after blank lines": ("a,y\n\r\n\n" + "1,2\n\r" * 9 + "1,x\n", "row 22, column 'y': 'x' is not a finite number"),
    "CR LF": ("a,y\r\n" + "1,2\r\n" * 99 + "1\r\n", "row 101: 1 columns, the header has 2"),
    "CR": ("a,y\r" + "1,2\r" * 99 + "1\r", "row 101: 1 columns, the header has 2"),
    "before quotes": ('a,y\n1,2\n1\n"1",x\n', "row 3: 1 columns, the header has 2"),
    "first of two": (
        "a,y\n" + "1,2\n" * 30 + "1,x\n" + "1,2\n" * 30 + "1\n",
        "row 32, column 'y': 'x' is not a finite",
    ),
    "after quotes": ("a,b,y\n" + QUOTED + '1,"2\n",x\n' + QUOTED, "row 52, column 'y': 'x' is not a finite number"),
    "quotes late": (
        "a,b,y\n" + "1,2,3\n" * 50 + QUOTED + '1,"2\n",\n',
        "row 102, column 'y': '' is not a finite number",
    ),
    "not finite after quotes": ("a,b,y\n" + QUOTED + "1,2,nan\n", "row 52, column 'y': 'nan' is not a finite number"),
    "ragged after quotes": ("a,b,y\n" + QUOTED + "1,2\n", "row 52: 2 columns, the header has 3"),
    "no rows": ("a,y\n" + "\n\r\n" * 50, "has a header but no rows"),
}


@pytest.mark.parametrize(("text", "expected"), MISTAKES.values(), ids=MISTAKES)
@pytest.mark.parametrize("block_bytes", BLOCK_SIZES)
def test_any_blocks_tell_a_mistake_with_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, expected: str, block_bytes: int
) -> None:
    monkeypatch.setattr(csv_reader, "BLOCK_BYTES", max(block_bytes, 200 if '"' in text else 1))
    with pytest.raises(DataError) as caught:
        read(tmp_path / "data.csv", text, ["a", "y"])
    assert str(caught.value).startswith(f"{tmp_path / 'data.csv'}: {expected}")


def test_reading_that_is_given_up_leaves_no_thread_and_no_open_file(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("a,y\n" + "1,2\n" * 2_000_000)
    blocks = CsvReader(tmp_path / "data.csv", ",").blocks(["a"])
    assert len(next(blocks)) > 0
    blocks.close()  # type: ignore[attr-defined]
