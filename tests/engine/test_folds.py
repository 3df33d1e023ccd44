"""Folds hold out each sample once, classes evenly and groups whole, and always the same way."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from base.splits import in_fold, train_and_valid
from utils import ConfigError


def folds(num_folds: int, num_samples: int, **kwargs: np.ndarray) -> np.ndarray:
    """Return which fold holds out which sample, (num_folds, num_samples) bool."""
    return torch.stack([in_fold(f"{k}/{num_folds}", num_samples, **kwargs) for k in range(1, num_folds + 1)]).numpy()


@pytest.mark.parametrize(("num_folds", "num_samples"), [(2, 2), (3, 10), (5, 100), (10, 101)])
def test_each_sample_is_held_out_once_and_folds_are_of_one_size(num_folds: int, num_samples: int) -> None:
    held_out = folds(num_folds, num_samples)
    assert (held_out.sum(axis=0) == 1).all()
    assert np.ptp(held_out.sum(axis=1)) <= 1
    assert (held_out == folds(num_folds, num_samples)).all()


def test_each_class_is_spread_evenly() -> None:
    classes = np.random.default_rng(0).choice(4, size=203, p=[0.6, 0.3, 0.08, 0.02])
    held_out = folds(5, 203, classes=classes)
    assert (held_out.sum(axis=0) == 1).all()
    for kind in range(4):
        assert np.ptp(held_out[:, classes == kind].sum(axis=1)) <= 1
    assert np.ptp(held_out.sum(axis=1)) <= 1


def test_a_group_is_in_one_fold() -> None:
    groups = np.random.default_rng(0).geometric(0.1, size=500)
    held_out = folds(4, 500, groups=groups)
    assert (held_out.sum(axis=0) == 1).all()
    for group in np.unique(groups):
        assert (held_out[:, groups == group].all(axis=1)).sum() == 1
    assert np.ptp(held_out.sum(axis=1)) <= np.bincount(groups).max()


@pytest.mark.parametrize("fold", ["3/2", "1/1", "1/11"])
def test_a_fold_that_cannot_be_is_refused(fold: str) -> None:
    with pytest.raises(ConfigError, match=r"data_loader.args.fold: \S+ of 10 samples"):
        in_fold(fold, 10)
    with pytest.raises(ConfigError, match="of 2 groups"):
        in_fold("1/3", 10, groups=np.arange(10) % 2)


def test_a_fold_is_of_the_indices_that_are_given() -> None:
    data, indices = torch.utils.data.TensorDataset(torch.arange(20)), torch.arange(5, 15)
    train, valid = train_and_valid(data, data, 0, indices, None, 0, "2/3", torch.arange(20) % 2)
    assert sorted([*train.tolist(), *valid.tolist()]) == indices.tolist()
    assert len(valid) == 3
    with pytest.raises(ConfigError, match="no validation_split beside it"):
        train_and_valid(data, data, 0.1, indices, None, 0, "2/3")
