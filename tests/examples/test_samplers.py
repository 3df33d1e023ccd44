"""Every sampler that a config names: its shares, its order anywhere in a run, and the mistakes in its arguments."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor
from torch.utils.data import (
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from base import BaseDataLoader, TensorBatches
from base.share import Slices
from data_loader import samplers
from data_loader.csv_data import CsvDataLoader
from data_loader.parquet_data import ParquetDataLoader
from data_loader.samplers import SamplerArg, drawing
from parse_config import ConfigParser, Slot
from slots import SLOTS
from utils import ConfigError, DataError

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than there are cores

LABELS = torch.tensor([0] * 95 + [1] * 5).repeat(10)  # a rare class
NUM_DRAWS, SEEDS = 25_000, range(20)
THIRDS = list(range(0, 1000, 3))
NAMED: dict[str, SamplerArg | Sampler[int]] = {  # the first word of each is the type in a config
    "sequential": samplers.sequential,
    "random": samplers.random,
    "random with replacement": partial(samplers.random, replacement=True, num_samples=70),
    "subset": partial(samplers.subset, indices=THIRDS),
    "weighted": samplers.weighted,
    "weighted by a column": partial(samplers.weighted, column="w", num_samples=300),
    "weighted without replacement": partial(samplers.weighted, replacement=False, num_samples=300),
    "batch": partial(samplers.batch, batch_size=7, sampler=samplers.weighted, drop_last=True),
    "SequentialSampler": SequentialSampler,
    "RandomSampler": partial(RandomSampler, replacement=True, num_samples=70),
    "SubsetRandomSampler": SubsetRandomSampler(THIRDS),
    "WeightedRandomSampler": WeightedRandomSampler([1.0, 3.0] * 500, 200),
}


def load(
    sampler: SamplerArg | Sampler[int], num_workers: int = 0, validation_split: int = 0, has_columns: bool = True
) -> BaseDataLoader:
    """Return a loader of samples whose inputs are their numbers, with a column of weights."""
    dataset = TensorBatches(torch.arange(len(LABELS)), LABELS)
    drawn_by = drawing(sampler, LABELS, (lambda name: LABELS + 0.5) if has_columns else None)
    return BaseDataLoader(dataset, 16, True, validation_split, num_workers, sampler=drawn_by, keep_workers=True)


def drawn(loader: BaseDataLoader, epoch: int = 1, first: int = 0, seed: int = 3) -> list[Tensor]:
    """Return the inputs of each batch of an epoch."""
    return [microbatch.batch[0] for [microbatch] in loader.epoch_steps(epoch, first, seed=seed)]


@pytest.mark.parametrize("shares", [None, [0.8, 0.2], [3, 1]])
def test_the_classes_have_the_shares_that_are_asked_for(shares: list[float] | None) -> None:
    loader = load(partial(samplers.weighted, shares=shares, num_samples=NUM_DRAWS))
    expected = torch.tensor(shares or [1, 1]) / sum(shares or [1, 1])
    for seed in SEEDS:
        indices = torch.cat(list(loader.batch_sampler.batches(seed, 1, 0)))
        assert len(indices) == NUM_DRAWS
        assert torch.allclose(LABELS[indices].bincount() / NUM_DRAWS, expected, atol=0.01)


def test_no_sampler_that_a_config_can_name_is_forgotten() -> None:
    slot = SLOTS["sampler"]
    assert isinstance(slot, Slot)
    assert {name.split()[0] for name in NAMED} == {name for name, _ in slot.types()}


@pytest.mark.parametrize("name", NAMED)
def test_a_sampler_resumes_anywhere_and_gives_workers_the_same(name: str) -> None:
    whole = drawn(load(NAMED[name]))
    others = [whole[:first] + drawn(load(NAMED[name]), first=first) for first in (1, 2, len(whole) - 1)]
    loader = load(NAMED[name], num_workers=3)
    others.append(drawn(loader))
    drawn(loader, epoch=2)
    others += [drawn(loader), whole[:2] + drawn(loader, first=2)]
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(whole, other, strict=True))
    is_same = [torch.equal(a, b) for a, b in zip(whole, drawn(load(NAMED[name]), epoch=2))]
    assert all(is_same) == name.lower().startswith("sequential")


@pytest.mark.parametrize("name", NAMED)
def test_processes_share_the_one_global_order(name: str) -> None:
    whole = drawn(load(NAMED[name]))
    loaders = [load(NAMED[name]) for _ in range(2)]
    for rank, loader in enumerate(loaders):
        loader.batch_sampler.share = Slices(2, [rank])
    shared = [torch.cat(halves) for halves in zip(*map(drawn, loaders), strict=True)]
    assert all(torch.equal(a, b) for a, b in zip(whole, shared, strict=True))


def test_what_is_drawn_is_what_the_sampler_says() -> None:
    everything = torch.arange(len(LABELS))

    def draws(sampler: SamplerArg, **options: Any) -> Tensor:
        return torch.cat(drawn(load(partial(sampler, **options))))

    assert torch.equal(draws(samplers.sequential), everything)
    assert torch.equal(draws(samplers.random).sort().values, everything)
    assert torch.equal(draws(samplers.subset, indices=[5, 900, 7]).sort().values, torch.tensor([5, 7, 900]))
    assert len(draws(samplers.random, replacement=True).unique()) < len(everything)
    once = draws(samplers.weighted, replacement=False, num_samples=100)
    assert len(once.unique()) == 100
    batches = drawn(load(partial(samplers.batch, batch_size=300, drop_last=True)))
    assert [len(batch) for batch in batches] == [300, 300, 300]


def test_held_out_samples_are_never_drawn() -> None:
    for sampler in NAMED.values():
        if isinstance(sampler, Sampler):  # over the whole dataset
            with pytest.raises(ConfigError, match="a sampler as a function of the training indices"):
                load(sampler, validation_split=200)
            continue
        loader = load(sampler, validation_split=200)
        held_out = loader.valid_indices()
        assert not torch.isin(torch.cat(drawn(loader)), held_out).any()


def test_weights_come_from_a_column_or_a_file(tmp_path: Path) -> None:
    weights = np.zeros(60)
    weights[[3, 41]] = 1, 3
    np.save(tmp_path / "weights.npy", weights)
    table = {"id": np.arange(60.0), "w": weights, "y": np.ones(60)}
    (tmp_path / "data.csv").write_text("id,w,y\n" + "".join(f"{i},{w},1\n" for i, w in enumerate(weights)))
    pq.write_table(pa.table(table), tmp_path / "data.parquet", row_group_size=25)
    options: dict[str, Any] = {"target": "y", "features": ["id"], "batch_size": 8}
    sources: list[dict[str, Any]] = [{"column": "w"}, {"path": str(tmp_path / "weights.npy")}]
    for weigh in sources:
        options["sampler"] = partial(samplers.weighted, num_samples=400, **weigh)
        one = torch.cat(drawn(CsvDataLoader(str(tmp_path / "data.csv"), **options)))
        mapped = CsvDataLoader(
            str(tmp_path / "data.csv"), max_memory=1e-9, cache_dir=str(tmp_path / "cache"), **options
        )
        for other in (drawn(mapped), drawn(ParquetDataLoader(str(tmp_path / "data.parquet"), **options))):
            assert torch.equal(one, torch.cat(other))
        assert 0.2 < (one == 3).double().mean() < 0.3
        assert set(one.flatten().tolist()) == {3.0, 41.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shares": [1.0]}, r"args.shares: 1 numbers; the training samples have 2 classes"),
        ({"shares": [1.0, 1.0], "path": "a.npy"}, "give one of shares, column and path"),
        ({"column": "w"}, "the data has no columns"),
        ({"replacement": False, "num_samples": 1001}, "without replacement there are 1000"),
    ],
)
def test_arguments_that_make_no_sense_are_told(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(partial(samplers.weighted, **options), has_columns=False)
    with pytest.raises(ConfigError, match="none of these samples"):
        load(partial(samplers.subset, indices=[1001]))


def test_files_of_weights_that_make_no_sense_are_told(tmp_path: Path) -> None:
    path = tmp_path / "weights.npy"
    sampler = partial(samplers.weighted, path=str(path))
    with pytest.raises(DataError, match=r"weights.npy: cannot be read as .npy: No such file"):
        load(sampler)
    for weights, message in ((np.ones(999), "has shape"), (-np.ones(1000), "finite and at least 0")):
        np.save(path, weights)
        with pytest.raises(DataError, match=message):
            load(sampler)


def parse(config: dict[str, Any], sampler: Any, tmp_path: Path) -> ConfigParser:
    config["data_loader"]["args"]["sampler"] = sampler
    return ConfigParser(config, slots=SLOTS)


def test_a_config_names_samplers_and_a_distributed_one_is_not_needed(config: dict[str, Any], tmp_path: Path) -> None:
    inner = {"type": "weighted", "args": {"num_samples": 30}}
    parsed = parse(config, {"type": "batch", "args": {"batch_size": 10, "sampler": inner}}, tmp_path)
    loader = parsed.init_obj("data_loader", training=True)
    assert [len(batch) for batch in drawn(loader)] == [10, 10, 10]
    balanced = parse(config, "weighted", tmp_path).init_obj("data_loader", training=True)
    assert isinstance(balanced.batch_sampler.sampler, WeightedRandomSampler)
    with pytest.raises(ConfigError, match="not needed: every process takes its part of the one global order"):
        parse(config, "DistributedSampler", tmp_path)
    with pytest.raises(ConfigError, match=r"sampler.args.share: unknown argument of weighted; did you mean 'shares'"):
        parse(config, {"type": "weighted", "args": {"share": [1]}}, tmp_path)
