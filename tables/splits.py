"""Which rows of a table are trained on, held out for validation, and the test split: by chance, by group or by time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from base import split_indices
from base.splits import in_fold
from utils import ConfigError

SPLIT_SEED = 0  # as in base/splits.py: the split stays the same when the seed of a run changes
WHERE = "data_loader.args"


class Splits(NamedTuple):
    """Indices of rows, each (n,) int64, ascending; together all rows."""

    train: Tensor
    valid: Tensor
    test: Tensor


def split_rows(
    num_rows: int,
    test_split: float | int,
    validation_split: float | int,
    groups: NDArray[np.int64] | None = None,
    times: NDArray[np.float64] | None = None,
    fold: str | None = None,
    classes: NDArray[np.int64] | None = None,
) -> Splits:
    """Return the splits: `groups`, (N,), keeps rows of one value together; `times`, (N,), holds the newest rows out.

    A split is a fraction of the rows, or a count. With `fold`, validation is that fold of what the test split leaves,
    with an even share of `classes`, (N,). Without groups and times, rows are drawn as in any BaseDataLoader. Raises
    ConfigError where nothing would be left to train on, or where a fraction holds out nothing.
    """
    rows, parts = torch.arange(num_rows), []
    for share, key in ((test_split, "test_split"), (validation_split, "validation_split")):
        if groups is None and times is None:
            rows, held_out = split_indices(len(rows), share, f"{WHERE}.{key}", indices=rows)
        else:
            mask = _held_out(rows.numpy(), share, f"{WHERE}.{key}", groups, times)
            rows, held_out = rows[~mask], rows[mask]
        parts.append(held_out)
    if fold is not None:
        if validation_split or times is not None:
            raise ConfigError(f"{WHERE}.fold: {fold}; give no validation_split and no split_time beside it")
        place = rows.numpy()
        mask = in_fold(fold, len(rows), *(None if part is None else part[place] for part in (classes, groups)))
        rows, parts[1] = rows[~mask], rows[mask]
    return Splits(rows, parts[1], parts[0])


def _held_out(
    rows: NDArray[np.int64],
    share: float | int,
    where: str,
    groups: NDArray[np.int64] | None,
    times: NDArray[np.float64] | None,
) -> Tensor:
    """Return which of `rows` are held out, (n,) bool."""
    size = len(split_indices(len(rows), share, where)[1])  # checks the share
    if size == 0:
        return torch.zeros(len(rows), dtype=torch.bool)
    if times is not None:
        newest_first = np.sort(times[rows])[::-1]
        mask = times[rows] >= newest_first[size - 1]  # and all rows of the same time
        what = "rows of different times"
    else:
        assert groups is not None
        values, sizes = np.unique(groups[rows], return_counts=True)
        order = torch.randperm(len(values), generator=torch.Generator().manual_seed(SPLIT_SEED)).numpy()
        before = np.cumsum(sizes[order]) - sizes[order] / 2  # a group that would be more than half too much stays
        chosen = order[: max(1, int((before < size).sum()))]
        mask = np.isin(groups[rows], values[chosen])
        what = "groups"
    if mask.all():
        raise ConfigError(f"{where}: {share} of {len(rows)} samples leaves none to train on: there are too few {what}")
    return torch.from_numpy(mask)
