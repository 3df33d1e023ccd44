"""Which samples are trained on, and which are held out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from base.datasets import BatchDataset
from base.split_cache import drawn
from utils import ConfigError, DataError

SPLIT_SEED = 0  # the split stays the same when the seed of a run changes, so that runs compare
WHERE = "data_loader.args"


def split_samples(
    dataset: Dataset[Any],
    training: bool,
    test_split: float | int | None,
    validation_split: float | int,
    valid_dataset: Dataset[Any] | None,
    validation_set: Dataset[Any] | None,
    indices: Tensor | None,
    valid_indices: Tensor | None,
    split_seed: int,
    fold: str | None,
) -> tuple[Tensor, Dataset[Any], Tensor]:
    """Return the samples of `dataset` that a loader gives, (n,) int64; and what is held out for validation, and where.

    See BaseDataLoader for the arguments. Raises ConfigError; DataError where the test split is asked for and is empty.
    """
    cache_dir = dataset.split_cache if isinstance(dataset, BatchDataset) else None
    if test_split is not None:
        indices = _train_or_test(dataset, test_split, training, indices, cache_dir)
    if not training:
        samples = torch.arange(num_samples(dataset)) if indices is None else indices
        return samples, dataset, samples[:0]
    classes = dataset.held_targets() if isinstance(dataset, BatchDataset) else None
    valid_dataset = dataset if valid_dataset is None else valid_dataset
    samples, held_out = train_and_valid(
        dataset, valid_dataset, validation_split, indices, valid_indices, split_seed, fold, classes, cache_dir
    )
    if validation_set is not None:
        return samples, validation_set, torch.arange(num_samples(validation_set))
    return samples, valid_dataset, held_out


def _train_or_test(
    dataset: Dataset[Any], test_split: float | int, training: bool, indices: Tensor | None, cache_dir: Path | None
) -> Tensor | None:
    """Return the samples that are not, or are, the test split; of `indices`, or of all, which None is."""
    if test_split == 0 and not training:
        raise DataError(f"{WHERE}.test_split is 0: there is no test split to evaluate on")
    if test_split == 0:
        return indices
    size = num_samples(dataset if indices is None else indices)
    kept, held_out = split_indices(size, test_split, f"{WHERE}.test_split", indices=indices, cache_dir=cache_dir)
    return kept if training else held_out


def train_and_valid(
    dataset: Dataset[Any],
    valid_dataset: Dataset[Any],
    validation_split: float | int,
    indices: Tensor | None,
    valid_indices: Tensor | None,
    split_seed: int,
    fold: str | None = None,
    classes: Tensor | None = None,
    cache_dir: Path | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the indices of `dataset` to train on, and those of `valid_dataset` that are held out.

    See BaseDataLoader for the arguments; `classes`, (N,), are of all samples of `dataset`. Raises ConfigError where
    nothing is left to train on.
    """
    if fold is not None:
        if validation_split or valid_indices is not None:
            raise ConfigError(f"{WHERE}.fold: {fold}; give no validation_split beside it")
        samples = torch.arange(num_samples(dataset)) if indices is None else torch.as_tensor(indices)
        is_held_out = in_fold(fold, len(samples), None if classes is None else classes[samples].numpy())
        return samples[~is_held_out], samples[is_held_out]
    if valid_indices is not None:
        return _without(valid_indices, num_samples(valid_dataset), indices, num_samples(dataset))
    size = num_samples(dataset if indices is None else indices)
    how: dict[str, Any] = {"indices": indices, "seed": split_seed, "cache_dir": cache_dir}
    return split_indices(size, validation_split, f"{WHERE}.validation_split", **how)


def split_indices(
    num_samples: int,
    held_out: float | int,
    where: str,
    *,
    indices: Tensor | None = None,
    seed: int = SPLIT_SEED,
    cache_dir: Path | None = None,
) -> tuple[Tensor, Tensor]:
    """Return (kept, held out) indices, each (n,) int64, ascending, a function of `seed`, which no run's seed changes.

    `held_out` is a fraction in [0, 1) or a number of samples; `where` is the config path for the error. What is split
    is range(num_samples), or `indices`, (num_samples,). A large split is kept in `cache_dir` for the next run.
    Raises ConfigError where nothing would be left to keep, or where a fraction holds out nothing.
    """
    size = int(num_samples * held_out) if isinstance(held_out, float) else held_out
    is_empty_fraction = held_out > 0 and size == 0
    if not 0 <= size < num_samples or is_empty_fraction:
        raise ConfigError(f"{where}: {held_out} of {num_samples} samples; give a fraction in [0, 1) or a smaller count")
    if size == 0:
        samples = torch.arange(num_samples) if indices is None else indices
        return samples, samples[:0]
    is_held_out = drawn(num_samples, size, seed, cache_dir)
    kept, held = (
        np.flatnonzero(mask) if indices is None else indices.numpy()[mask] for mask in (~is_held_out, is_held_out)
    )
    return torch.from_numpy(kept), torch.from_numpy(held)


def in_fold(fold: str, num_samples: int, classes: np.ndarray | None = None, groups: np.ndarray | None = None) -> Tensor:
    """Return which samples fold "K/N" holds out, (num_samples,) bool; over the N folds each sample is held out once.

    Samples are dealt at random, always in the same way; those of a class, (num_samples,), evenly. All of one group,
    (num_samples,), go to one fold, the largest groups first and to the fold with the fewest samples. Raises ConfigError
    for fewer samples or groups than folds.
    """
    number, num_folds = (int(part) for part in fold.split("/"))
    what = num_samples if groups is None else len(np.unique(groups))
    if not 1 <= number <= num_folds or num_folds < 2 or what < num_folds:
        kind = "samples" if groups is None else "groups"
        raise ConfigError(f"{WHERE}.fold: {fold} of {what} {kind}; give K/N, with K up to N and N up to their number")
    order = torch.randperm(num_samples, generator=torch.Generator().manual_seed(SPLIT_SEED)).numpy()
    folds = np.empty(num_samples, np.int64)
    if groups is None:
        if classes is not None:
            order = order[np.argsort(classes[order], kind="stable")]
        folds[order] = np.arange(num_samples) % num_folds
    else:
        _, first, sizes = np.unique(groups[order], return_index=True, return_counts=True)
        filled = np.zeros(num_folds, np.int64)
        for at in np.lexsort((first, -sizes)):
            chosen = int(filled.argmin())
            folds[groups == groups[order[first[at]]]] = chosen
            filled[chosen] += sizes[at]
    return torch.from_numpy(folds == number - 1)


def _without(valid_indices: Any, num_valid: int, indices: Tensor | None, num_samples: int) -> tuple[Tensor, Tensor]:
    """Return (kept, held out): `indices`, or range(num_samples), without `valid_indices`. Raises ConfigError."""
    held_out = torch.as_tensor(valid_indices)
    if not bool(((held_out >= 0) & (held_out < num_valid)).all()):
        raise ConfigError(f"{WHERE}.valid_indices: lie in [0, {num_valid}), the samples of the dataset")
    samples = torch.arange(num_samples) if indices is None else indices
    is_held_out = torch.zeros(max(num_valid, num_samples), dtype=torch.bool)
    is_held_out[held_out.long()] = True
    return samples[~is_held_out[samples]], held_out


def num_samples(samples: Any) -> int:
    """Return how many samples there are."""
    return len(samples)  # of a Dataset, whose class does not declare it
