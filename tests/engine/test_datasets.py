"""Batches of a dataset depend on (seed, epoch, index) alone, for tensors and for per-sample datasets."""

from __future__ import annotations

import pickle
import random
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from base import AugmentedBatches, BatchDataset, MappedBatches, TensorBatches
from base.datasets import NUM_AUGMENT_DRAWS, SeededSamples
from utils import rng_state, sample_uniforms, set_rng_state

CPU = torch.device("cpu")
INPUTS = torch.arange(40.0).reshape(20, 2)
TARGETS = torch.arange(20)


class NoisySamples(Dataset[tuple[Tensor, int]]):
    """Samples with noise from every global generator, as random transforms draw it; sample 19 is broken."""

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        noise = [random.random(), float(np.random.rand()), torch.rand(()).item(), random.gauss(0, 1)]
        if index == 19:
            raise OSError("broken sample")
        return INPUTS[index, :1] + torch.tensor(noise, dtype=torch.float64), index


@pytest.fixture(autouse=True)
def _global_generators() -> Iterator[None]:
    """Leave the generators of the process as they were."""
    state = rng_state(CPU)
    yield
    set_rng_state(state, CPU)


def add_uniforms(inputs: Tensor, uniforms: Tensor) -> Tensor:
    """An augmentation that shows what it was given."""
    return inputs + uniforms[:, :2]


def test_tensor_batches_are_the_indexed_rows_in_the_order_asked_for() -> None:
    dataset = TensorBatches(INPUTS, TARGETS)
    inputs, targets = dataset.__getitems__([7, 0, 7])
    assert inputs.tolist() == [[14, 15], [0, 1], [14, 15]]
    assert targets.tolist() == [7, 0, 7]
    assert len(dataset) == 20


def test_augmentation_gets_each_samples_own_uniforms_of_the_epoch() -> None:
    dataset = AugmentedBatches(TensorBatches(INPUTS, TARGETS), add_uniforms)
    dataset.set_epoch(5, 3)
    inputs, targets = dataset.__getitems__([4, 11])
    uniforms = sample_uniforms(5, 3, torch.tensor([4, 11]), NUM_AUGMENT_DRAWS)
    assert torch.equal(inputs, INPUTS[[4, 11]] + uniforms[:, :2])
    assert targets.tolist() == [4, 11]


def test_augmentation_leaves_the_stored_samples_as_they_are() -> None:
    stored = INPUTS.clone()
    AugmentedBatches(TensorBatches(stored, TARGETS), lambda inputs, uniforms: inputs.mul_(0)).__getitems__([1, 2])
    assert torch.equal(stored, INPUTS)


def test_an_augmented_dataset_is_shuffled_by_the_blocks_of_its_dataset() -> None:
    dataset = TensorBatches(INPUTS, TARGETS)
    dataset.block_size, dataset.window_blocks = torch.tensor([1, len(INPUTS) - 1]), 1
    augmented = AugmentedBatches(dataset, add_uniforms)
    assert augmented.block_size is dataset.block_size
    assert augmented.window_blocks == 1


@pytest.mark.parametrize(
    "dataset", [AugmentedBatches(TensorBatches(INPUTS, TARGETS), add_uniforms), SeededSamples(NoisySamples())]
)
def test_a_sample_is_the_same_in_any_batch_and_another_in_any_other_epoch_or_seed(dataset: BatchDataset) -> None:
    def sample(seed: int, epoch: int, batch: list[int]) -> list[float]:
        dataset.set_epoch(seed, epoch)
        items = dataset.__getitems__(batch)
        position = batch.index(4)
        inputs = items[0][position] if isinstance(items, tuple) else items[position][0]
        return inputs.tolist()

    first = sample(1, 1, [4])
    assert sample(1, 1, [9, 3, 4, 5]) == sample(1, 1, [4, 4]) == first
    assert len({tuple(sample(seed, epoch, [4])) for seed in (1, 2, 3) for epoch in (1, 2, 3)}) == 9


def test_samples_of_one_batch_have_noise_of_their_own() -> None:
    dataset = SeededSamples(NoisySamples())
    noise = [tuple((inputs - INPUTS[index, 0]).tolist()) for inputs, index in dataset.__getitems__(list(range(19)))]
    assert len(set(noise)) == 19


@pytest.mark.parametrize("index", [3, 19])
def test_reading_samples_leaves_every_global_generator_as_it_was_even_after_an_error(index: int) -> None:
    random.gauss(0, 1)  # Python's generator now keeps a spare number, which must come back too
    before = rng_state(CPU)
    try:
        SeededSamples(NoisySamples()).__getitems__([1, index])
    except OSError as error:
        assert (index, str(error)) == (19, "broken sample")  # noqa: PT017 - only one of the two samples is broken
    after = rng_state(CPU)
    assert torch.equal(before.pop("torch"), after.pop("torch"))
    assert before == after


def mapped(tmp_path: Path, num_rows: int = 20) -> MappedBatches:
    """Return the first rows of INPUTS and TARGETS as a table on disk."""
    table = torch.cat([INPUTS, TARGETS.float().unsqueeze(1)], dim=1)[:num_rows]
    np.save(tmp_path / "table.npy", table.numpy())
    return MappedBatches(tmp_path / "table.npy", f"{zlib.crc32(table.numpy().tobytes()):08x}")


@pytest.mark.parametrize("indices", [[7, 0, 7], torch.tensor([7, 0, 7]), [3]])
def test_mapped_batches_are_those_in_memory_and_leave_the_file_alone(
    tmp_path: Path, indices: list[int] | Tensor
) -> None:
    dataset = mapped(tmp_path)
    for _ in range(2):
        inputs, targets = dataset.__getitems__(indices)
        assert torch.equal(inputs, INPUTS[indices])
        assert torch.equal(targets, TARGETS[indices].float().unsqueeze(1))
        inputs += 1
    assert len(dataset) == 20


def test_a_mapped_table_travels_as_its_path(tmp_path: Path) -> None:
    dataset = mapped(tmp_path)
    dataset.set_epoch(3, 4)
    pickled = pickle.dumps(dataset)
    assert len(pickled) < 1000
    copy = pickle.loads(pickled)
    assert torch.equal(copy.__getitems__([5])[0], INPUTS[[5]])
    assert (copy.fingerprint(), copy.seed, copy.epoch) == (dataset.fingerprint(), 3, 4)


def test_blocks_of_a_mapped_table_are_a_quarter_of_a_mebibyte(tmp_path: Path) -> None:
    assert mapped(tmp_path).block_size == 2**18 // 12


def test_the_fingerprint_of_views_is_that_of_their_values() -> None:
    table = torch.rand(10_000, 3)
    views, copies = (
        TensorBatches(*parts) for parts in ((table[:, :2], table[:, 2:]), (table[:, :2].clone(), table[:, 2:].clone()))
    )
    assert views.fingerprint() == copies.fingerprint()
    table[9_999, 1] += 1
    assert views.fingerprint() != copies.fingerprint()


def test_length_is_that_of_the_dataset_inside() -> None:
    assert len(SeededSamples(NoisySamples())) == 20


def test_a_dataset_must_say_its_length_and_its_batches() -> None:
    with pytest.raises(TypeError, match="abstract"):
        BatchDataset()  # type: ignore[abstract]
