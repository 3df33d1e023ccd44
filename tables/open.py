"""Reads, splits and fits a table, or opens it from the file that an earlier run converted it into."""

from __future__ import annotations

import logging
import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from base import BatchDataset, MappedBatches, TensorBatches
from base.array_cache import checksum_of, find_array, locked, read_notes, write_array
from tables.columns import Column
from tables.fit import fit_columns, fit_target, recode
from tables.float32 import Rows
from tables.kept_table import CHUNK, MIN_BYTES, KeptBatches, find_kept, inputs_and_targets, keep_table
from tables.request import TableRequest
from tables.row_encoder import RowEncoder
from tables.splits import Splits
from utils import DataError

MAX_LABELS_SHOWN = 200  # characters

logger = logging.getLogger("data")


@dataclass
class OpenTable:
    """A table that is ready to train on: `columns` and `targets` are fitted."""

    dataset: BatchDataset
    drawn: tuple[float | int, float | int] | None  # shares for test and validation, where the splits are by chance
    splits: Splits | None  # elsewhere
    columns: list[Column]
    targets: list[Column]
    missing_values: list[str] = field(default_factory=list)

    @property
    def class_names(self) -> list[str]:
        """The labels of the target, where it is a class."""
        return self.targets[0].labels

    def split(self, training: bool) -> dict[str, Any]:
        """Return the arguments of a BaseDataLoader of the training split and what is held out, or of the test split."""
        if self.splits is not None:
            train, valid, test = self.splits
            held_out = valid if len(valid) else None
            return {"validation_split": 0, "indices": train if training else test, "valid_indices": held_out}
        assert self.drawn is not None
        return {"validation_split": self.drawn[1], "test_split": self.drawn[0]}

    def as_fact(self) -> dict[str, Any]:
        """Return plain data, which a checkpoint holds (see RowEncoder.from_facts)."""
        return {
            "columns": [column.as_fact() for column in self.columns],
            "targets": [column.as_fact() for column in self.targets],
            "missing_values": list(self.missing_values),
        }


def open_table(request: TableRequest, max_bytes: float, cache_dir: Path, cache: bool) -> OpenTable:
    """Return the table, in memory, or mapped where it is larger than `max_bytes` or was kept by an earlier run.

    Raises DataError, ConfigError.
    """
    key, source = request.key(), request.source
    raw = request.encoder()
    is_large = source.num_rows() * raw.width * np.dtype(np.float32).itemsize > max_bytes
    if is_large:
        return _mapped(request, cache_dir, key)
    keeps = cache and source.num_bytes >= MIN_BYTES
    kept = find_kept(cache_dir, key) if keeps else None
    if kept is not None:
        return _opened(request, KeptBatches(kept, request.num_targets, request.chosen.is_class), kept)
    data = bytearray()  # grows in place: a large one by moving its pages, so that there are never two
    for rows in source.rows(raw):
        data += rows.data
    matrix = np.frombuffer(data, np.float32).reshape(-1, raw.width)
    table, splits, columns = _fitted(request, raw, matrix)
    batches = TensorBatches(*inputs_and_targets(torch.from_numpy(table), request.num_targets, request.chosen.is_class))
    if keeps:
        keep_table(torch.from_numpy(table), batches, cache_dir, key, _notes(request, splits, columns))
    return _as_open(request, batches, splits, columns)


def _fitted(request: TableRequest, raw: RowEncoder, matrix: Rows) -> tuple[Rows, Splits, list[Column]]:
    """Return the matrix with the codes of the fitted labels, without the columns of the split, and what was fitted."""
    splits = request.split(raw, matrix)
    num_columns = len(raw.columns) - len(request.extra)
    if request.fitted is not None:
        columns = raw.columns[:num_columns]
    else:
        only = RowEncoder(raw.columns[:num_columns], request.missing_values)
        only.coders = raw.coders[:num_columns]
        try:
            columns = fit_columns(only, matrix, splits.train)
        except DataError as error:
            raise DataError(f"{request.source.path}: {error}") from None
        recode(only, columns, matrix)
        targets = matrix[:, sum(column.width for column in columns) - request.num_targets :]
        for i, target in enumerate(columns[-request.num_targets :], start=-request.num_targets):
            columns[i] = fit_target(target, targets[:, request.num_targets + i], splits.train)
    width = sum(column.width for column in columns)
    if request.chosen.is_class and np.isnan(matrix[:, width - 1]).any():
        row = int(np.isnan(matrix[:, width - 1]).argmax())
        raise _unseen_label(request, columns[-1], row)
    return matrix[:, :width], splits, columns


def _unseen_label(request: TableRequest, target: Column, row: int) -> DataError:
    where = f"{request.source.path}: {request.source.place(row)}, column {target.name!r}"
    labels = ", ".join(target.labels)
    labels = labels if len(labels) < MAX_LABELS_SHOWN else f"{labels[:MAX_LABELS_SHOWN]} …"
    return DataError(f"{where}: its label is not in the training split, which has {labels}")


def _mapped(request: TableRequest, cache_dir: Path, key: str) -> OpenTable:
    """Return a table that does not fit in memory, converted unless that was done before."""
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        path = find_array(cache_dir, key)
        if path is None:
            with locked(cache_dir):
                path = find_array(cache_dir, key) or _convert(request, cache_dir, key)
    except (OSError, ValueError) as error:
        raise DataError(f"{cache_dir}: cannot be written to: {getattr(error, 'strerror', None) or error}") from error
    how: dict[str, Any] = {"num_targets": request.num_targets, "is_class": request.chosen.is_class}
    return _opened(request, MappedBatches(path, checksum_of(path), **how), path)


def _convert(request: TableRequest, cache_dir: Path, key: str) -> Path:
    logger.info(f"{request.source.path}: over max_memory; converting it, once, into a table in {cache_dir}")
    raw, temp = request.encoder(), cache_dir / f".{key}.raw.npy.tmp"
    try:
        with open(temp, "wb") as file:
            for rows in request.source.rows(raw):
                file.write(rows.data)
        matrix = np.memmap(temp, np.float32, "r+").reshape(-1, raw.width)
        table, splits, columns = _fitted(request, raw, matrix)
        blocks: Iterator[Rows] = (np.ascontiguousarray(table[at : at + CHUNK]) for at in range(0, len(table), CHUNK))
        notes = partial(_notes, request, splits, columns)
        return write_array(cache_dir, key, blocks, table.shape[1:], notes=notes)
    finally:
        temp.unlink(missing_ok=True)


def _notes(request: TableRequest, splits: Splits, columns: list[Column]) -> dict[str, Any]:
    """Return what a later run must know of a kept table."""
    which = np.zeros(sum(map(len, splits)), np.uint8)  # of each row, the index in `splits`
    for number, indices in enumerate(splits):
        which[indices.numpy()] = number
    return {
        "warnings": request.source.notes,
        "columns": [column.as_fact() for column in columns],
        "splits": None if request.is_drawn else b64encode(zlib.compress(which.tobytes(), 1)).decode(),
    }


def _opened(request: TableRequest, dataset: BatchDataset, path: Path) -> OpenTable:
    """Return a table that was kept at `path`."""
    notes = read_notes(path)
    columns = [Column(**column) for column in notes["columns"]]
    splits = None
    if notes["splits"] is not None:
        which = np.frombuffer(zlib.decompress(b64decode(notes["splits"])), np.uint8)
        splits = Splits(*(torch.from_numpy(np.flatnonzero(which == number)) for number in range(3)))
    return _as_open(request, dataset, splits, columns)


def _as_open(request: TableRequest, dataset: BatchDataset, splits: Splits | None, columns: list[Column]) -> OpenTable:
    num_features = len(columns) - request.num_targets
    missing_values = request.missing_values if request.fitted is None else request.fitted["missing_values"]
    drawn = (request.test_split, request.validation_split) if request.is_drawn else None
    return OpenTable(
        dataset,
        drawn,
        None if request.is_drawn else splits,
        columns[:num_features],
        columns[num_features:],
        missing_values,
    )
