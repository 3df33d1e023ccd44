"""Reading the numeric columns of a CSV file on all cores, block by block, and telling its mistakes by their place."""

from __future__ import annotations

import csv
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from itertools import islice, takewhile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
from numpy.typing import NDArray

from data_loader.csv_mistakes import first_mistake
from utils import DataError, nearest

BLOCK_BYTES = 1 << 20  # of text; pyarrow makes some three times as much of it
MAX_WORKERS = 16

Rows = NDArray[np.float32]


class CsvReader:
    """A CSV file in UTF-8 whose first row is a header. Messages count rows from 1, the header."""

    def __init__(self, path: Path, delimiter: str) -> None:
        """Read the header. Raises DataError where there is none."""
        self.path = path
        self.delimiter = delimiter
        taken: list[str] = []  # the lines of the first row: several where a name holds a line break
        try:
            with open(path, newline="", encoding="utf-8") as file:
                header = next(csv.reader(_without_bom(file, taken), delimiter=delimiter), None)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise self._unreadable(error) from None
        if not header:
            raise DataError(f"{path}: {'is empty' if header is None else 'row 1: is empty; the header belongs there'}")
        self.header = header
        self.body_start = len("".join(taken).encode())  # in bytes

    def check(self, columns: list[str]) -> None:
        """Raise DataError where a column is missing or appears twice."""
        for name in columns:
            if name not in self.header:
                raise DataError(f"{self.path}: has no column {name!r}; {nearest(name, self.header)}")
            if self.header.count(name) > 1:
                raise DataError(f"{self.path}: has {self.header.count(name)} columns called {name!r}")

    def blocks(self, columns: list[str]) -> Iterator[Rows]:
        """Yield the named columns of all rows as arrays (rows, columns), row-major, in the order of the file.

        Raises DataError, with row and column, at what is ragged or not a finite float32, and where there is no row.
        """
        num_rows, good = 0, self.body_start  # before this byte there is no mistake
        try:
            for start, rows in self._parsed(columns):
                if not np.isfinite(rows).all():
                    raise pa.ArrowInvalid("holds what is not a finite number")
                good = start
                num_rows += len(rows)
                yield rows
        except pa.ArrowMemoryError:
            raise
        except pa.ArrowException as error:
            raise self._mistake(columns, good, error) from None
        except OSError as error:
            raise self._unreadable(error) from None
        if num_rows == 0:
            raise DataError(f"{self.path}: has a header but no rows")

    def _parsed(self, columns: list[str]) -> Iterator[tuple[int, Rows]]:
        """Yield (first byte, rows): blocks from all cores up to the first with a quote, and from there on from one.

        After a quote a line end may be part of a value, and only who has parsed all before it can tell.
        """
        num_workers = min(os.cpu_count() or 1, MAX_WORKERS)
        pending: deque[tuple[int, Future[Rows | None]]] = deque()
        with open(self.path, "rb") as file, ExitStack() as stack:
            files: deque[BinaryIO] = deque()  # one for each worker, all opened now, so that all are the same file
            files += [stack.enter_context(open(self.path, "rb", buffering=0)) for _ in range(num_workers)]
            pool = stack.enter_context(ThreadPoolExecutor(num_workers))
            spans = self._spans(file)
            while True:
                for start, size in islice(spans, num_workers + 2 - len(pending)):
                    pending.append((start, pool.submit(self._parse, columns, files, start, size)))
                if not pending:
                    return
                start, future = pending.popleft()
                rows = future.result()
                if rows is None:
                    break
                yield start, rows
        with open(self.path, "rb") as file:
            file.seek(start)
            for batch in pa_csv.open_csv(file, **self._options(columns, BLOCK_BYTES, is_quoted=True)):
                yield start, _as_rows(batch)

    def _spans(self, file: BinaryIO) -> Iterator[tuple[int, int]]:
        """Yield (first byte, number of bytes) of the blocks: whole lines, and whole rows where there is no quote."""
        start, end = self.body_start, os.fstat(file.fileno()).st_size
        while start < end:
            file.seek(start + BLOCK_BYTES)
            file.readline()
            size = min(file.tell(), end) - start
            yield start, size
            start += size

    def _parse(self, columns: list[str], files: deque[BinaryIO], start: int, size: int) -> Rows | None:
        file = files.pop()
        try:
            text = read_at(file, start, size)
        finally:
            files.append(file)
        if b'"' in text:
            return None
        return _as_rows(pa_csv.read_csv(pa.BufferReader(text), **self._options(columns, size + 1, is_quoted=False)))

    def _options(self, columns: list[str], block_size: int, is_quoted: bool) -> dict[str, Any]:
        """Return pyarrow's options; columns go by their positions, as those not wanted may share a name."""
        types = {str(self.header.index(name)): "float64" for name in columns}
        names = [str(i) for i in range(len(self.header))]
        return {
            "read_options": pa_csv.ReadOptions(column_names=names, block_size=block_size, use_threads=False),
            "parse_options": pa_csv.ParseOptions(delimiter=self.delimiter, newlines_in_values=is_quoted),
            "convert_options": pa_csv.ConvertOptions(include_columns=list(types), column_types=types, null_values=[]),
        }

    def _mistake(self, columns: list[str], start: int, error: Exception) -> DataError:
        """Return, with its place, the first mistake from the block at byte `start` on, before which there is no quote.

        `error` is what stopped the reading; it is reported where no mistake is found.
        """
        try:
            with open(self.path, "rb") as file:
                before = takewhile(lambda span: span[0] < start, self._spans(file))
                first_row = 2 + sum(_num_lines(read_at(file, *span)) for span in before)
            found = first_mistake(self.path, self.header, columns, self.delimiter, start, first_row)
        except (OSError, csv.Error) as unreadable:
            return self._unreadable(unreadable)
        return DataError(f"{self.path}: {found or error}")

    def _unreadable(self, error: Exception) -> DataError:
        return DataError(f"{self.path}: cannot be read: {getattr(error, 'strerror', None) or error}")


def read_at(file: BinaryIO, start: int, size: int) -> bytes:
    """Return `size` bytes of `file` from byte `start` on, or fewer at its end. Raises OSError."""
    file.seek(start)
    return file.read(size)


def _without_bom(file: Iterable[str], taken: list[str]) -> Iterator[str]:
    """Yield the lines of `file`, and keep in `taken` those that were asked for."""
    for line in file:
        taken.append(line)
        yield line.removeprefix("\ufeff")


def _as_rows(table: pa.Table | pa.RecordBatch) -> Rows:
    rows = np.empty((table.num_rows, table.num_columns), dtype=np.float32)
    with np.errstate(over="ignore"):  # what does not fit float32 becomes inf, which is reported as a mistake
        for i, column in enumerate(table.columns):
            rows[:, i] = column.to_numpy(zero_copy_only=False)
    return rows


def _num_lines(text: bytes) -> int:
    return text.count(b"\n") + text.count(b"\r") - text.count(b"\r\n")
