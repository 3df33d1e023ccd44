"""New rows of a CSV file, block by block: fast where a block has no mistake, else row by row."""

from __future__ import annotations

import csv
import io
import os
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
from torch import Tensor, from_numpy

from base import Chunk
from tables.csv_dialect import plain_csv
from tables.csv_mistakes import Cells, kept_lines, unclosed_quote
from tables.csv_reader import BLOCK_BYTES, MAX_LINE_BYTES, MAX_WORKERS, CsvReader
from utils import DataError
from utils.errors import reading

NumberedRow = tuple[int, list[str], list[str]]
"""Number, cells and lines."""


class Encoder(Cells, Protocol):
    """What turns the columns `names` of a table into features; NumberEncoder and RowEncoder are such."""

    @property
    def names(self) -> list[str]:
        """The columns that a table must have."""

    def encode_rows(self, table: pa.Table) -> tuple[Tensor, dict[int, str]]:
        """Return the features (N, ...), and what is wrong by row, counted from 0. Raises DataError."""


class CsvFormat(NamedTuple):
    """How a CSV file is written."""

    delimiter: str = ","
    encoding: str = "utf-8"
    names: list[str] | None = None  # of all columns, where there is no header
    temp_dir: Path = Path("saved/.cache/")  # for a copy in UTF-8 of a file of another encoding


COMMAS = CsvFormat()


def csv_chunks(
    path: Path, how: CsvFormat, encoder: Encoder, keep: Sequence[str], targets: Sequence[str]
) -> Iterator[Chunk]:
    """Yield the rows of a CSV file; without a header it may have the columns `targets`, or not. Raises DataError."""
    with plain_csv(path, how.delimiter, how.encoding, how.temp_dir) as (plain, delimiter):
        try:
            try:
                reader = CsvReader(plain, delimiter, how.names, encoder)
            except DataError:
                if how.names is None:
                    raise
                reader = CsvReader(plain, delimiter, [name for name in how.names if name not in targets], encoder)
            for chunk in NewCsv(reader, encoder, keep).chunks():
                yield chunk._replace(mistakes=[text.replace(str(plain), str(path)) for text in chunk.mistakes])
        except DataError as error:
            raise DataError(str(error).replace(str(plain), str(path))) from None


class NewCsv:
    """A CSV file of new rows: features for `encoder`, and columns to keep as they are."""

    def __init__(self, reader: CsvReader, encoder: Encoder, keep: Sequence[str]) -> None:
        """Check the header. Raises DataError."""
        self.reader, self.path, self.header, self.delimiter = reader, reader.path, reader.header, reader.delimiter
        self.encoder, self.keep = encoder, list(keep)
        self.columns = list(dict.fromkeys([*encoder.names, *keep]))
        self.reader.check(self.columns)
        self._counted = (reader.body_start, reader.first_row)  # a byte, and the number of the row that begins there

    def chunks(self) -> Iterator[Chunk]:
        """Yield the rows of block after block, which several threads parse. Raises DataError."""
        num_workers = min(os.cpu_count() or 1, MAX_WORKERS)
        pending: deque[tuple[int, bytes, Future[Chunk | None]]] = deque()
        with reading(self.path, DataError), open(self.path, "rb") as file, ThreadPoolExecutor(num_workers) as pool:
            blocks = self._blocks(file, self.reader.body_start)
            while True:
                while len(pending) < num_workers + 2 and (block := next(blocks, None)) is not None:
                    pending.append((*block, pool.submit(self._parse, block[1])))
                if not pending:
                    break
                start, text, future = pending.popleft()
                yield future.result() or self._row_by_row(start, text)
        self.reader.check_unchanged()

    def _blocks(self, file: BinaryIO, start: int) -> Iterator[tuple[int, bytes]]:
        """Yield (first byte, text) of whole rows: of lines with an even number of quotes (RFC 4180 doubles them)."""
        file.seek(start)
        while text := file.read(BLOCK_BYTES):
            lines, size = [text], len(text)
            while size <= MAX_LINE_BYTES:
                line = file.readline(MAX_LINE_BYTES)
                lines.append(line)
                size += len(line)
                quoted = (part for part in lines if b'"' in part)  # to search takes a tenth of to count
                if not line or sum(part.count(b'"') for part in quoted) % 2 == 0:
                    break
                lines = [b"".join(lines)] if len(lines) > 64 else lines
            if size > MAX_LINE_BYTES:
                raise DataError(f"{self.path}: no row ends in {MAX_LINE_BYTES} bytes after byte {start}; a quote?")
            yield start, b"".join(lines)
            start += size

    def _parse(self, text: bytes) -> Chunk | None:
        """Return the rows of a block, or None where there is, or may be, a mistake in it."""
        is_quoted = b'"' in text
        names = self.encoder.names
        options = self.encoder.arrow_options(names)
        types = dict(zip(names, options.pop("types"))) | dict.fromkeys(self.keep, pa.string())
        try:
            table = self._read(text, is_quoted, types, **options)
            rows, _ = self.encoder.rows(table.select(names))
            kept = table.select(self.keep)
        except pa.ArrowInvalid:
            return None
        is_whole = not is_quoted or table.num_rows == _num_lines(text)
        return Chunk(from_numpy(rows), kept) if is_whole else None

    def _read(self, text: bytes, is_quoted: bool, types: dict[str, pa.DataType], **options: Any) -> pa.Table:
        """Return columns of a block; they are read by position, as others may share a name."""
        places = {str(self.header.index(name)): kind for name, kind in types.items()}
        names = [str(i) for i in range(len(self.header))]
        read = pa_csv.read_csv(
            pa.BufferReader(text),
            pa_csv.ReadOptions(column_names=names, block_size=len(text) + 1, use_threads=False),
            pa_csv.ParseOptions(delimiter=self.delimiter, newlines_in_values=is_quoted),
            pa_csv.ConvertOptions(include_columns=list(places), column_types=places, **({"null_values": []} | options)),
        )
        return read.rename_columns(list(types))

    def _row_by_row(self, start: int, text: bytes) -> Chunk:
        """Return the good rows of a block, and what is wrong with the others. Raises DataError for an open quote."""
        numbers, rows, mistakes = [], [], {}
        for number, row, lines in self._numbered(self._row_at(start), text):
            if "\n" in "".join(row) or "\r" in "".join(row):
                at = unclosed_quote(row, lines, self.header, self.encoder.names, self.delimiter, self.encoder)
                if at is not None:
                    where = f"{self.path}: row {number}, column {self.header[at : at + 1] or at + 1}"
                    raise DataError(f"{where}: a value of {len(lines)} lines; is its closing quote missing?")
            if len(row) != len(self.header):
                mistakes[number] = f": {len(row)} columns, the header has {len(self.header)}"
                continue
            cells = [row[self.header.index(name)] for name in self.columns]
            strange = [name for name, cell in zip(self.columns, cells) if not _is_utf8(cell)]
            if strange:
                mistakes[number] = f", column {strange[0]!r}: is not UTF-8"
                continue
            numbers.append(number)
            rows.append(cells)
        columns = zip(*rows) if rows else [()] * len(self.columns)
        table = pa.table([pa.array(column, pa.string()) for column in columns], names=self.columns)
        features, wrong = self.encoder.encode_rows(table)
        mistakes |= {numbers[i]: f", {wrong[i]}" for i in wrong}
        told = [f"{self.path}: row {number}{mistakes[number]}" for number in sorted(mistakes)]
        return Chunk(*without(wrong, features, table.select(self.keep)), told)

    def _row_at(self, start: int) -> int:
        """Return the number of the row that begins at a byte, where a block does; row 1 is the header."""
        begin, number = self._counted
        with open(self.path, "rb") as file:
            for place, text in self._blocks(file, begin):
                if place == start:
                    break
                number += sum(1 for _ in self._numbered(number, text, with_empty=True))
        self._counted = (start, number)
        return number

    def _numbered(
        self, first: int, text: bytes, with_empty: bool = False
    ) -> Iterator[tuple[int, list[str], list[str]]]:
        """Yield each row of a block."""
        taken: list[str] = []
        lines = io.StringIO(text.decode("utf-8", "surrogateescape"), newline="")
        try:
            for number, row in enumerate(csv.reader(kept_lines(lines, taken), delimiter=self.delimiter), first):
                if row or with_empty:
                    yield number, row, taken
                taken.clear()
        except csv.Error as error:  # a value over 128 KiB, or NUL
            raise DataError(f"{self.path}: {error}, after byte {self._counted[0]}") from None


def without(wrong: Collection[int], features: Tensor, kept: pa.Table) -> tuple[Tensor, pa.Table]:
    """Return the rows of both that are not wrong."""
    if not wrong:
        return features, kept
    is_good = np.ones(len(features), dtype=bool)
    is_good[list(wrong)] = False
    return features[from_numpy(is_good)], kept.filter(pa.array(is_good)) if kept.num_columns else kept


def _num_lines(text: bytes) -> int:
    return text.count(b"\n") + text.count(b"\r") - text.count(b"\r\n") + (not text.endswith((b"\n", b"\r")))


def _is_utf8(cell: str) -> bool:
    try:
        cell.encode()
    except UnicodeEncodeError:
        return False
    return True
