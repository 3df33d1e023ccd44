"""A table of predictions as a CSV or Parquet file, which is there when it is whole, and not before."""

from __future__ import annotations

import csv
import io
import os
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from pyarrow import types

from utils import ConfigError, fsync_dir, writing_to

SUFFIXES = (".csv", ".parquet")
# What no spreadsheet takes for a formula (OWASP, "CSV Injection"): another first character, or a number such as -5.
SAFE = r"^($|[^=+\-@\t\r\n]|[+-]([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$)"


class OutputFile:
    """Writes tables to a temp file beside `path`, which takes its place at the end of a `with` without an error.

    In a CSV file, text that a spreadsheet would take for a formula gets a ' in front.
    """

    def __init__(self, path: Path) -> None:
        """Raise ConfigError where there can be no such file."""
        if path.suffix.lower() not in SUFFIXES:
            raise ConfigError(f"--output: {path}; give a name that ends in {' or '.join(SUFFIXES)}")
        if path.is_dir():
            raise ConfigError(f"--output: {path}: is a directory")
        if not path.absolute().parent.is_dir():
            raise ConfigError(f"--output: {path}: there is no directory {path.parent}")
        self.path, self.is_csv = path, path.suffix.lower() == ".csv"
        self.num_rows = self.num_guarded = 0
        self._temp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self._writer: Any = None
        self._stack = ExitStack()

    def write(self, table: pa.Table) -> None:
        """Append rows; all tables have the same columns. Raises RunDirError where that cannot be."""
        with writing_to(self.path.absolute().parent):
            table = self._guarded(table) if self.is_csv else table
            if self._writer is None:
                self._writer = self._open(table.schema)
            self._writer.write_table(table)
        self.num_rows += table.num_rows

    def __enter__(self) -> OutputFile:
        """Return the file; it is opened with the first rows."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Let the file take its place, or after an error leave nothing."""
        try:
            with writing_to(self.path.absolute().parent):
                self._stack.close()
                if kind is None and self._writer is not None:
                    with open(self._temp, "rb+") as file:
                        os.fsync(file.fileno())
                    os.replace(self._temp, self.path)
                    fsync_dir(self.path.absolute().parent)
        finally:
            self._temp.unlink(missing_ok=True)

    def _open(self, schema: pa.Schema) -> Any:
        self._temp.unlink(missing_ok=True)  # of a killed process of this number
        sink = self._stack.enter_context(pa.OSFile(str(self._temp), "wb"))
        if not self.is_csv:
            return self._stack.enter_context(pq.ParquetWriter(sink, schema))
        header = io.StringIO()
        names = self._guard(pa.array(schema.names)).to_pylist()
        csv.writer(header, lineterminator="\n").writerow(names)
        sink.write(header.getvalue().encode())
        options = pa_csv.WriteOptions(include_header=False, quoting_style="needed")
        return self._stack.enter_context(pa_csv.CSVWriter(sink, schema, write_options=options))

    def _guarded(self, table: pa.Table) -> pa.Table:
        for i, field in enumerate(table.schema):
            if types.is_string(field.type) or types.is_large_string(field.type):
                table = table.set_column(i, field.name, self._guard(table.column(i)))
        return table

    def _guard(self, texts: Any) -> Any:
        is_risky = pc.invert(pc.match_substring_regex(texts, SAFE))
        num_risky = pc.sum(is_risky).as_py() or 0
        if num_risky == 0:
            return texts
        self.num_guarded += num_risky
        return pc.if_else(is_risky, pc.binary_join_element_wise("'", texts, ""), texts)
