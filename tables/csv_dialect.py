"""How the text of a CSV file is written: other encodings and runs of blanks are rewritten; a wrong one is named."""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

from utils import ConfigError, DataError
from utils.files import open_regular

WHITESPACE = "whitespace"
DELIMITERS = ",;\t|"
HEAD_BYTES = 1 << 16
CHUNK_CHARS = 1 << 20
RUN = re.compile(r'"(?:[^"\r\n]|"")*"|[ \t]+')
MARKS = {
    codecs.BOM_UTF32_LE: "it looks like UTF-32: TableDataLoader takes `encoding`: utf-32",
    codecs.BOM_UTF16_LE: "it looks like UTF-16: TableDataLoader takes `encoding`: utf-16",
    codecs.BOM_UTF16_BE: "it looks like UTF-16: TableDataLoader takes `encoding`: utf-16",
    b"\x1f\x8b": "it looks like gzip: decompress it",
    b"PK\x03\x04": "it looks like a zip file, as an Excel workbook is: export it as CSV",
    b"\xd0\xcf\x11\xe0": "it looks like an old Excel workbook: export it as CSV",
    b"PAR1": "it looks like Parquet: let its name end in .parquet",
}


def check_dialect(delimiter: str, encoding: str, where: str = "data_loader.args") -> None:
    """Raise ConfigError for a delimiter that would mean something else, or an encoding that Python does not know."""
    if delimiter != WHITESPACE and (len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n\0'):
        raise ConfigError(f"{where}.delimiter: {delimiter!r}; give one character, no quote or line end")
    try:
        "".encode(encoding).decode(encoding)
    except (LookupError, ValueError, UnicodeError):  # ValueError: a NUL; LookupError too where it is not of text
        known = "Python knows utf-8, latin-1, utf-16 and others"
        raise ConfigError(f"{where}.encoding: {encoding!r}; {known}") from None


@contextmanager
def plain_csv(path: Path, delimiter: str, encoding: str, temp_dir: Path) -> Iterator[tuple[Path, str]]:
    """Yield the path and delimiter of a file in UTF-8 that has the rows of `path`, on the same lines.

    That is `path` itself where it is such a file, and otherwise one in `temp_dir`, which is deleted afterwards. Raises
    DataError, with the place, where the text is not of that encoding.
    """
    is_utf8 = codecs.lookup(encoding).name in ("utf-8", "utf-8-sig")
    if is_utf8 and delimiter != WHITESPACE:
        yield path, delimiter
        return
    try:
        temp_dir.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(
            "w", encoding="utf-8", newline="", dir=temp_dir, prefix=".plain-", suffix=".csv"
        ) as out:
            for text in _chunks(path, encoding):
                out.write(_with_tabs(text) if delimiter == WHITESPACE else text)
            out.flush()
            yield Path(out.name), "\t" if delimiter == WHITESPACE else delimiter
    except OSError as error:
        raise DataError(f"{path}: cannot be rewritten in {temp_dir}: {error.strerror or error}") from None


def _chunks(path: Path, encoding: str) -> Iterator[str]:
    """Yield the text in pieces of whole lines. Raises DataError."""
    num_lines = 0
    try:
        with open_regular(path) as raw, io.TextIOWrapper(raw, encoding, newline="") as file:
            rest = ""
            while text := file.read(CHUNK_CHARS):
                text = rest + text
                end = max(text.rfind("\n"), text.rfind("\r", 0, -1)) + 1  # the last \r may be half of a line end
                rest = text[end:]
                num_lines += text.count("\n", 0, end)
                yield text[:end].removeprefix("\ufeff")
            yield rest
    except UnicodeError as error:
        raise DataError(f"{path}: is not {encoding} after row {num_lines}: {error}{looks_like(path)}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


def _with_tabs(text: str) -> str:
    """Return the text with a tab in the place of each run of blanks, but none at an end of a line or in quotes."""
    if '"' in text:
        text = RUN.sub(lambda found: found[0] if found[0][0] == '"' else "\t", text)
    else:
        text = re.sub(r"[ \t]+", "\t", text)
    return re.sub(r"^\t|\t$|\t(?=\r)", "", text, flags=re.MULTILINE)


def looks_like(path: Path) -> str:
    """Return what a file that is not UTF-8 looks like, as the end of a message."""
    try:
        with open_regular(path) as file:
            head = file.read(HEAD_BYTES)
    except OSError:
        return ""
    for mark, hint in MARKS.items():
        if head.startswith(mark):
            return f"; {hint}"
    for odd, name in ((0, "utf-16-be"), (1, "utf-16-le")):
        if len(head) > 2 and head[odd::2].count(0) > 0.8 * len(head[odd::2]):
            return f"; it looks like UTF-16: TableDataLoader takes `encoding`: {name}"
    try:
        head.decode()
    except UnicodeDecodeError as error:
        if error.end == len(head):  # cut within a character
            return ""
        near = head[max(0, error.start - 10) : error.end + 10]
        return f"; as latin-1 it reads {near.decode('latin-1')!r} there: TableDataLoader takes `encoding`: latin-1"
    return ""


def other_delimiter(head: str, delimiter: str, num_columns: int, name: str | None = None) -> str:
    """Return that the first row is one of at least `num_columns`, with the column `name`, with another delimiter."""
    for other in DELIMITERS.replace(delimiter, ""):
        row = next(csv.reader([head.removeprefix("\ufeff")], delimiter=other), [])
        if len(row) >= num_columns and (name is None or name in row):
            return f"; it looks like {other!r} is the delimiter: give `delimiter`"
    blanks = head.split()
    if delimiter not in f"{WHITESPACE} \t" and len(blanks) >= max(num_columns, 2) and name in (None, *blanks):
        return f"; it looks like runs of blanks are the delimiter: TableDataLoader takes `delimiter`: {WHITESPACE}"
    return ""


def file_size(path: Path) -> int:
    """Return the size of a file in bytes, 0 where there is none."""
    try:
        return os.stat(path).st_size
    except (OSError, ValueError):
        return 0
