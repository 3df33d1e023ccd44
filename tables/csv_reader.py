"""Reads the numeric columns of a CSV file on all cores, block by block, and reports mistakes by row and column."""

from __future__ import annotations

import csv
import io
import logging
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from tables.csv_dialect import looks_like, other_delimiter
from tables.csv_mistakes import Cells, first_mistake, is_finite_float32, kept_lines, unclosed_quote
from tables.float32 import Bounds, FiniteNumbers, Rows, lost_digits
from utils import DataError, nearest
from utils.files import open_regular

BLOCK_BYTES = 1 << 20  # of text; pyarrow makes some three times as much of it
MAX_LINE_BYTES = 64 << 20
MAX_WORKERS = 16
MAX_HINT = 500  # characters

logger = logging.getLogger("data")


class CsvReader:
    """A CSV file in UTF-8 whose first row is a header, unless it is given. Messages count rows from 1, the header.

    `cells` says of which kind the columns are that are read: by default all are numbers.
    """

    def __init__(self, path: Path, delimiter: str, names: list[str] | None = None, cells: Cells | None = None) -> None:
        """Read the header, or take `names` for one. Raises DataError where there is none, or the first row differs."""
        self.path = path
        self.cells = cells or FiniteNumbers()
        self.delimiter = delimiter
        self.notes: list[str] = []  # what `blocks` warned of
        taken: list[str] = []  # the lines of the first row: several where a name holds a line break
        try:
            with open_regular(path) as file:
                self.identity = file_identity(path)
                text = io.TextIOWrapper(file, "utf-8", errors="surrogateescape", newline="")
                lines = kept_lines(iter(partial(text.readline, MAX_LINE_BYTES), ""), taken)
                without_bom = (line.removeprefix("\ufeff") for line in lines)
                header = next(csv.reader(without_bom, delimiter=delimiter, strict=True), None)
            first_row = "".join(taken).encode(errors="surrogateescape")
            first_row.decode()
        except csv.Error as error:
            raise DataError(f"{path}: row 1: {error}; is a closing quote missing?") from None
        except (OSError, UnicodeDecodeError) as error:
            raise self._unreadable(error) from None
        if not header:
            raise DataError(f"{path}: {'is empty' if header is None else 'row 1: is empty; the header belongs there'}")
        if names is None and all(map(is_finite_float32, header)):
            raise DataError(f"{path}: row 1: holds only numbers; the names of the columns belong there")
        if names is not None and len(header) != len(names):
            hint = other_delimiter(first_row.decode(), delimiter, len(names))
            raise DataError(f"{path}: row 1: {len(header)} columns, but {len(names)} names are given{hint}")
        self.header = header if names is None else names
        self.first_row = 1 if names is not None else 2  # of the data
        bom = len("\ufeff".encode()) if first_row.startswith("\ufeff".encode()) else 0
        self.body_start = len(first_row) if names is None else bom  # in bytes
        self._head = first_row.decode()

    @property
    def num_bytes(self) -> int:
        """The size of the file when its header was read."""
        return self.identity[0] if self.identity else 0

    def check(self, columns: list[str]) -> None:
        """Raise DataError where a column is missing or appears twice, or a name in the header has swallowed rows."""
        for name in columns:
            if name not in self.header:
                hint = nearest(name, (known if known.isprintable() else repr(known) for known in self.header))
                hint = hint if len(hint) <= MAX_HINT else f"{hint[:MAX_HINT]} ..."
                hint += other_delimiter(self._head, self.delimiter, 2, name)
                raise DataError(f"{self.path}: has no column {name!r}; {hint}")
            if self.header.count(name) > 1:
                raise DataError(f"{self.path}: has {self.header.count(name)} columns called {name!r}")
        at = unclosed_quote(self.header, [], self.header, columns, self.delimiter, self.cells)
        if at is not None:
            raise DataError(f"{self.path}: row 1, column {at + 1}: is a closing quote missing?")

    def blocks(self, columns: list[str]) -> Iterator[Rows]:
        """Yield the named columns of all rows as arrays (rows, columns), row-major, in the order of the file.

        Raises DataError, with row and column, for a ragged row, a value that is not a finite float32, or a quote that
        swallows rows. Also raises it where there are no rows, or the file has changed since its header was read. Warns
        of each column that loses digits in float32.
        """
        num_rows, good = 0, self.body_start  # before this byte there is no mistake
        bounds: Bounds = np.full((3, len(columns)), -np.inf)
        try:
            for start, rows, block_bounds in self._parsed(columns):
                good = start
                num_rows += len(rows)
                np.maximum(bounds, block_bounds, out=bounds)
                yield rows
            mistake = None if num_rows else "has a header but no rows"
        except pa.ArrowMemoryError:  # no mistake of the file
            raise
        except pa.ArrowException as error:
            mistake = self._first_mistake(columns, good) or " ".join(str(error).split())
        except OSError as error:
            raise self._unreadable(error) from None
        if self.identity != file_identity(self.path):
            mistake = "was changed while it was read"
        if mistake is not None:
            raise DataError(f"{self.path}: {mistake}")
        self.notes = [f"{self.path}: {note}" for note in lost_digits(columns, bounds)]
        for note in self.notes:
            logger.warning(note)

    def check_unchanged(self) -> None:
        """Raise DataError where the file is another than when its header was read."""
        if self.identity != file_identity(self.path):
            raise DataError(f"{self.path}: was changed while it was read")

    def _parsed(self, columns: list[str]) -> Iterator[tuple[int, Rows, Bounds]]:
        """Yield (first byte, rows, bounds), parsed on all cores up to the first block with a quote, then on one.

        After a quote, a line end may be part of a value; only a parser that has read everything before it knows.
        """
        num_workers = min(os.cpu_count() or 1, MAX_WORKERS)
        pending: deque[tuple[int, Future[tuple[Rows, Bounds] | None]]] = deque()
        with open(self.path, "rb") as file, ExitStack() as stack:
            files: deque[BinaryIO] = deque()  # one for each worker, opened together so that all are the same file
            files += [stack.enter_context(open(self.path, "rb", buffering=0)) for _ in range(num_workers)]
            pool = stack.enter_context(ThreadPoolExecutor(num_workers))
            spans = self._spans(file, self.body_start)
            while True:
                for start, size in islice(spans, num_workers + 2 - len(pending)):
                    pending.append((start, pool.submit(self._parse, columns, files, start, size)))
                if not pending:
                    return
                start, future = pending.popleft()
                parsed = future.result()
                if parsed is None:
                    break
                yield start, *parsed
        num_rows = 0
        with open(self.path, "rb") as file:
            file.seek(start)
            for batch in pa_csv.open_csv(file, **self._options(columns, BLOCK_BYTES, is_quoted=True)):
                num_rows += batch.num_rows
                yield start, *self.cells.rows(batch)
        if num_rows != self._num_lines(start):  # a quoted value holds line ends, its own or those of whole rows
            mistake = self._first_mistake(columns, start, quotes_alone=True)
            if mistake is not None:
                raise DataError(f"{self.path}: {mistake}")

    def _spans(self, file: BinaryIO, start: int) -> Iterator[tuple[int, int]]:
        """Yield (first byte, number of bytes) of each block: whole lines, which are whole rows without quotes."""
        end = os.fstat(file.fileno()).st_size
        while start < end:
            file.seek(start + BLOCK_BYTES)
            if len(file.readline(MAX_LINE_BYTES)) == MAX_LINE_BYTES:
                raise DataError(f"{self.path}: has no line end in {MAX_LINE_BYTES} bytes after byte {start}")
            size = min(file.tell(), end) - start
            yield start, size
            start += size

    def _num_lines(self, start: int, end: int | None = None) -> int:
        """Return the number of lines in the blocks from byte `start` to the one that begins at `end`."""
        num_lines, text = 0, b"\n"
        with open(self.path, "rb") as file:
            for span in self._spans(file, start):
                if span[0] == end:
                    break
                text = read_at(file, *span)
                num_lines += text.count(b"\n") + text.count(b"\r") - text.count(b"\r\n")
        return num_lines + (not text.endswith((b"\n", b"\r")))

    def _parse(self, columns: list[str], files: deque[BinaryIO], start: int, size: int) -> tuple[Rows, Bounds] | None:
        file = files.pop()
        try:
            text = read_at(file, start, size)
        finally:
            files.append(file)
        if b'"' in text:
            return None
        table = pa_csv.read_csv(pa.BufferReader(text), **self._options(columns, size + 1, is_quoted=False))
        return self.cells.rows(table)

    def _options(self, columns: list[str], block_size: int, is_quoted: bool) -> dict[str, Any]:
        """Return pyarrow's options; columns are named by position, as unused ones may share a name."""
        options = self.cells.arrow_options(columns)
        types = dict(zip((str(self.header.index(name)) for name in columns), options.pop("types")))
        names = [str(i) for i in range(len(self.header))]
        return {
            "read_options": pa_csv.ReadOptions(column_names=names, block_size=block_size, use_threads=False),
            "parse_options": pa_csv.ParseOptions(delimiter=self.delimiter, newlines_in_values=is_quoted),
            "convert_options": pa_csv.ConvertOptions(include_columns=list(types), column_types=types, **options),
        }

    def _first_mistake(self, columns: list[str], start: int, quotes_alone: bool = False) -> str | None:
        """Return the first mistake, with its place, from byte `start` on; no block before it has a quote.

        With `quotes_alone`, look only for quotes that swallow rows, which is faster.
        """
        try:
            first_row = self.first_row + self._num_lines(self.body_start, start)
            where = (self.path, self.header, columns, self.delimiter, self.cells)
            return first_mistake(*where, start, first_row, quotes_alone)
        except OSError as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: Exception) -> DataError:
        hint = looks_like(self.path) if isinstance(error, UnicodeDecodeError) else ""
        return DataError(f"{self.path}: cannot be read: {getattr(error, 'strerror', None) or error}{hint}")


def read_at(file: BinaryIO, start: int, size: int) -> bytes:
    """Return `size` bytes of `file` from byte `start`, or fewer at the end of the file. Raises OSError."""
    file.seek(start)
    return file.read(size)


def file_identity(path: Path) -> tuple[int, ...]:
    """Return what changes when the file is replaced or edited, even with its size and modification time kept."""
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino
