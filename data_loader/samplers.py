"""The samplers that a config names: which training samples an epoch draws. Yours to extend.

Each is a function of the training samples that returns a sampler of torch's, over their positions. Its generator is
seeded by (seed, epoch), so what it draws depends on these alone, not on the number of processes or workers.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from utils import ConfigError, DataError
from utils.annotations import DataPath, NonNegativeInt, PositiveFloat, PositiveInt

WHERE = "data_loader.args.sampler"
MAX_WEIGHTS = 1 << 24  # that torch.multinomial takes

SamplerArg = Callable[..., Sampler[int]]
"""What a loader takes as `sampler`: a function of this file without its samples, or a class of torch's."""

logger = logging.getLogger("data")


class Samples(NamedTuple):
    """The training samples that are drawn from."""

    indices: Tensor  # (n,) int64, of the dataset
    labels: Tensor | None  # (N,) of the dataset, where it has any: the weighted sampler balances them
    column: Callable[[str], Tensor] | None = None  # the values (N,) of a column, where the dataset has columns


def drawing(
    sampler: SamplerArg | Sampler[int] | None,
    labels: Tensor | None = None,
    column: Callable[[str], Tensor] | None = None,
) -> Callable[[Tensor], Sampler[int]] | Sampler[int] | None:
    """Return the `sampler` argument of BaseDataLoader for that of a loader whose dataset has these labels and columns.

    Torch's own samplers get the training indices as their data source; one that is built already stays as it is.
    """
    if sampler is None or isinstance(sampler, Sampler):
        return sampler
    if "samples" in inspect.signature(sampler).parameters:
        return lambda indices: sampler(samples=Samples(indices, labels, column))
    return sampler


def sequential(samples: Samples) -> Sampler:
    """All samples in the order of the data, the same in every epoch."""
    return SequentialSampler(samples.indices)


def random(samples: Samples, replacement: bool = False, num_samples: PositiveInt | None = None) -> Sampler:
    """`num_samples` of them, by default all; with `replacement` a sample may be drawn again."""
    return RandomSampler(samples.indices, replacement, num_samples)


def subset(samples: Samples, indices: list[NonNegativeInt]) -> Sampler:
    """These samples of the dataset in a random order; held-out ones are skipped, with a line in the log.

    Raises ConfigError if none is left.
    """
    asked = torch.tensor(indices, dtype=torch.int64)
    positions = torch.isin(samples.indices, asked).nonzero().flatten()
    if len(positions) == 0:
        raise ConfigError(f"{WHERE}.args.indices: none of these samples is in the training split")
    if len(positions) < len(asked.unique()):
        logger.info(f"{WHERE}: {len(positions):,} of the {len(asked.unique()):,} samples are in the training split")
    return SubsetRandomSampler(positions.tolist())


def weighted(
    samples: Samples,
    shares: list[PositiveFloat] | None = None,
    column: str | None = None,
    path: DataPath | None = None,
    num_samples: PositiveInt | None = None,
    replacement: bool = True,
) -> Sampler:
    """Samples by weight, `num_samples` of them, by default as many as there are.

    Each class is drawn in proportion to its `shares`, by default equally, whatever its frequency. Or the weights come
    from a `column` of the data, or the .npy file `path`, one for each sample of the dataset.
    Raises ConfigError if the arguments contradict each other or the data; DataError if the file does.
    """
    if sum(given is not None for given in (shares, column, path)) > 1:
        raise ConfigError(f"{WHERE}.args: give one of shares, column and path")
    if column is not None or path is not None:
        weights = _given_weights(samples, column, path)
    else:
        weights = _class_weights(samples, shares)
    count = num_samples or len(weights)
    if not replacement and count > int((weights > 0).sum()):
        raise ConfigError(f"{WHERE}.args.num_samples: {count}, but without replacement there are {(weights > 0).sum()}")
    if len(weights) > MAX_WEIGHTS:
        raise ConfigError(f"{WHERE}: can weigh up to {MAX_WEIGHTS:,} samples; there are {len(weights):,}")
    return WeightedRandomSampler(weights, count, replacement)  # type: ignore[arg-type]  # it takes a tensor as it is


def batch(samples: Samples, batch_size: PositiveInt, sampler: SamplerArg = random, drop_last: bool = False) -> Sampler:
    """What another sampler draws, in batches; `drop_last` drops a smaller last one.

    In training, `batch_size` replaces the loader's own.
    """
    inner = drawing(sampler, samples.labels, samples.column)
    drawn_by = inner if isinstance(inner, Sampler) or inner is None else inner(samples.indices)
    return BatchSampler(drawn_by, batch_size, drop_last)  # type: ignore[arg-type]


def _given_weights(samples: Samples, column: str | None, path: str | None) -> Tensor:
    if column is not None and samples.column is None:
        raise ConfigError(f"{WHERE}.args.column: the data has no columns; give path or shares")
    where = f"{WHERE}.args.column: {column!r}" if column is not None else f"{path}"
    if column is not None and samples.column is not None:
        values = samples.column(column)
    else:
        try:
            values = torch.from_numpy(np.load(Path(str(path))))
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: cannot be read as .npy: {getattr(error, 'strerror', None) or error}") from None
    last = int(samples.indices.max())
    if values.ndim != 1 or len(values) <= last:
        raise DataError(f"{where}: has shape {list(values.shape)}; it must be (N,), a weight for each sample")
    weights = values.double()[samples.indices]
    if not bool((weights.isfinite() & (weights >= 0)).all()) or not bool(weights.any()):
        raise DataError(f"{where}: weights must be finite and at least 0, and some above 0")
    return weights


def _class_weights(samples: Samples, shares: list[float] | None) -> Tensor:
    """Return a weight for each sample such that every class is drawn in its share."""
    if samples.labels is None:
        raise ConfigError(f"{WHERE}: the data has no classes in memory to balance; give column or path")
    if samples.labels.is_floating_point() and bool((samples.labels != samples.labels.round()).any()):
        raise ConfigError(f"{WHERE}: the targets are not classes that could be balanced; give column or path")
    classes, members, counts = samples.labels.flatten()[samples.indices].unique(return_inverse=True, return_counts=True)
    if shares is not None and len(shares) != len(classes):
        raise ConfigError(
            f"{WHERE}.args.shares: {len(shares)} numbers; the training samples have {len(classes)} classes"
        )
    asked = torch.ones(len(classes)) if shares is None else torch.tensor(shares)
    return (asked.double() / counts)[members]
