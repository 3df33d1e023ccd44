"""Texts and their classes from a CSV file, as sequences of characters."""

from __future__ import annotations

import csv
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from base import BaseDataLoader, BatchDataset
from base.datasets import Indices
from data_loader.collate import Collate, pad
from data_loader.samplers import SamplerArg, drawing
from utils import DataError
from utils.annotations import BatchSize, DataPath, NumWorkers, PositiveInt, Share
from utils.errors import printable, reading

PADDING, UNKNOWN = 0, 1  # numbers outside the alphabet
ALPHABET = [chr(code) for code in range(ord(" "), ord("~") + 1)]  # ASCII: the same for every file and checkpoint


class TextDataLoader(BaseDataLoader):
    """Batches of (Padded characters (N, T) int64, classes (N,) int64); see data_loader/collate.py.

    The CSV file `path` is UTF-8 and has a header; `text` and `label` are columns of it. Classes are the sorted labels.
    A character is its position in ALPHABET plus 2; others are UNKNOWN, padding is 0. Texts are cut off at `max_length`.
    `test_split` (a fraction, or a count of rows) is always the same rows.
    """

    def __init__(
        self,
        path: DataPath,
        batch_size: BatchSize,
        shuffle: bool = True,
        validation_split: Share = 0.0,
        num_workers: NumWorkers = 0,
        training: bool = True,
        *,
        text: str = "text",
        label: str = "label",
        test_split: Share = 0.0,
        max_length: PositiveInt = 1000,
        collate: Collate = pad,
        sampler: SamplerArg | None = None,
    ) -> None:
        """Read the training split, or with `training=False` the test split.

        Raises DataError where the file is missing, lacks a column, or has an empty text, with the row.
        """
        texts, labels = _read(Path(path), text, label)
        self.class_names = sorted(set(labels))
        numbers = {name: number for number, name in enumerate(self.class_names)}
        dataset = TextBatches([text[:max_length] for text in texts], torch.tensor([numbers[name] for name in labels]))
        self.num_classes = len(self.class_names)
        super().__init__(
            *(dataset, batch_size, shuffle, validation_split, num_workers, collate),
            training=training,
            test_split=test_split,
            sampler=drawing(sampler, dataset.labels),
        )

    def facts(self) -> dict[str, Any]:
        """Return the classes, and how many different numbers a character may have."""
        num_chars = len(ALPHABET) + 2
        return {"num_classes": self.num_classes, "class_names": self.class_names, "num_chars": num_chars}


class TextBatches(BatchDataset):
    """Samples (characters (T,) int64, class), in lists for `collate`."""

    def __init__(self, texts: list[str], labels: Tensor) -> None:
        self.texts, self.labels = texts, labels

    def __len__(self) -> int:
        return len(self.texts)

    def __getitems__(self, indices: Indices) -> list[tuple[Tensor, Tensor]]:
        return [(encoded(self.texts[i]), self.labels[i]) for i in torch.as_tensor(indices).tolist()]

    def fingerprint(self) -> str:
        """Return a checksum of texts and labels."""
        checksum = zlib.crc32(self.labels.numpy().data, zlib.crc32("\0".join(self.texts).encode()))
        return f"{super().fingerprint()}:{checksum:08x}"

    def held_targets(self) -> Tensor:
        """Return the classes."""
        return self.labels


def encoded(text: str) -> Tensor:
    """Return the numbers of the characters of a text, (T,) int64."""
    codes = torch.tensor([ord(char) for char in text])
    is_known = (codes >= ord(ALPHABET[0])) & (codes <= ord(ALPHABET[-1]))
    return torch.where(is_known, codes - ord(ALPHABET[0]) + 2, UNKNOWN)


def _read(path: Path, text: str, label: str) -> tuple[list[str], list[str]]:
    with reading(path, DataError), open(path, encoding="utf-8", newline="") as file:
        try:
            rows = csv.DictReader(file)
            missing = [name for name in (text, label) if name not in (rows.fieldnames or ())]
            if missing:
                columns = ", ".join(rows.fieldnames or ())
                raise DataError(f"{path}: has no column {missing[0]!r}; it has {printable(columns)}")
            pairs = [(row[text], row[label]) for row in rows]
        except csv.Error as error:
            raise DataError(f"{path}:{rows.line_num}: {error}") from None
    empty = [number for number, pair in enumerate(pairs, start=1) if not all(pair)]
    if empty or not pairs:
        raise DataError(f"{path}: " + (f"row {empty[0]}: its text or label is empty" if empty else "has no rows"))
    return [text for text, _ in pairs], [label for _, label in pairs]
