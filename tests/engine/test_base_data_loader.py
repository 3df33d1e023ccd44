"""A loader's batches depend on (seed, epoch) alone: any number of workers, a start anywhere, any epoch length."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from base import AugmentedBatches, BaseDataLoader, TensorBatches
from utils import ConfigError, rng_state, set_rng_state

CPU = torch.device("cpu")
NUM_SAMPLES = 46
INPUTS = torch.arange(2.0 * NUM_SAMPLES).reshape(NUM_SAMPLES, 2)
TARGETS = torch.arange(NUM_SAMPLES)

Batch = tuple[Tensor, Tensor]
Steps = list[list[Batch]]


class NoisySamples(Dataset[tuple[Tensor, int]]):
    """Samples with noise from every global generator, as random transforms draw it."""

    def __len__(self) -> int:
        return NUM_SAMPLES

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        noise = [random.random(), float(np.random.rand()), torch.rand(()).item()]
        return INPUTS[index, :1] + torch.tensor(noise, dtype=torch.float64), index


def add_uniforms(inputs: Tensor, uniforms: Tensor) -> Tensor:
    """A random augmentation."""
    return inputs + uniforms[:, :2]


def make_loader(kind: str, num_workers: int = 0, validation_split: float | int = 6, **kwargs: Any) -> BaseDataLoader:
    """Return a loader of 40 training samples in 8 batches of "plain" or "augmented" tensors or "noisy" samples."""
    dataset: Dataset[Any] = {
        "plain": TensorBatches(INPUTS, TARGETS),
        "augmented": AugmentedBatches(TensorBatches(INPUTS, TARGETS), add_uniforms),
        "noisy": NoisySamples(),
    }[kind]
    return BaseDataLoader(dataset, 5, True, validation_split, num_workers, **kwargs)


def plain(steps: Any) -> Any:
    """Turn tensors in nested lists and tuples into lists, which compare."""
    return steps.tolist() if isinstance(steps, Tensor) else [plain(item) for item in steps]


def targets_of(steps: Steps) -> list[list[list[int]]]:
    """Return the targets of each microbatch of each step."""
    return [[targets.tolist() for _, targets in step] for step in steps]


@pytest.fixture(autouse=True)
def _global_generators() -> Iterator[None]:
    """Leave the generators of the process as they were."""
    state = rng_state(CPU)
    yield
    set_rng_state(state, CPU)


@pytest.mark.parametrize("kind", ["plain", "augmented", "noisy"])
def test_an_epoch_is_a_function_of_seed_and_epoch_whatever_was_iterated_before(kind: str) -> None:
    used, fresh = make_loader(kind), make_loader(kind)
    for epoch in (3, 1):
        list(islice(used.epoch_steps(epoch, seed=9), 2))
    torch.rand(5)
    assert plain(used.epoch_steps(2, seed=4)) == plain(fresh.epoch_steps(2, seed=4))
    orders = [targets_of(list(used.epoch_steps(epoch, seed=seed))) for epoch in (1, 2, 3) for seed in (0, 1)]
    assert all(one != other for i, one in enumerate(orders) for other in orders[:i])


@pytest.mark.parametrize("kind", ["plain", "noisy"])
def test_an_epoch_is_every_training_sample_once(kind: str) -> None:
    loader = make_loader(kind)
    seen = [target for step in targets_of(list(loader.epoch_steps(1, seed=0))) for batch in step for target in batch]
    assert sorted(seen) == loader.train_indices().tolist()
    assert len(seen) == loader.n_samples == 40


@pytest.mark.parametrize("kind", ["augmented", "noisy"])
@pytest.mark.parametrize(("first_step", "len_epoch"), [(0, None), (3, None), (4, 6)])
def test_batches_are_the_same_with_any_number_of_workers(kind: str, first_step: int, len_epoch: int | None) -> None:
    def steps(num_workers: int) -> Any:
        loader = make_loader(kind, num_workers)
        return plain(loader.epoch_steps(2, first_step, seed=1, len_epoch=len_epoch))

    expected = steps(0)
    assert len(expected) == (len_epoch or 8) - first_step
    assert steps(1) == expected
    assert steps(2) == expected


@pytest.mark.parametrize("kind", ["augmented", "noisy"])
@pytest.mark.parametrize("len_epoch", [None, 3, 8, 11])
@pytest.mark.parametrize("grad_accum_steps", [1, 3])
@pytest.mark.parametrize("epoch", [1, 3])
def test_a_start_in_the_middle_of_an_epoch_yields_exactly_its_tail(
    kind: str, len_epoch: int | None, grad_accum_steps: int, epoch: int
) -> None:
    loader = make_loader(kind)
    options: dict[str, Any] = {"seed": 2, "len_epoch": len_epoch, "grad_accum_steps": grad_accum_steps}
    whole = plain(loader.epoch_steps(epoch, **options))
    assert len(whole) == (len_epoch or loader.num_steps(grad_accum_steps))
    for first_step in range(len(whole) + 1):
        assert plain(make_loader(kind).epoch_steps(epoch, first_step, **options)) == whole[first_step:]


@pytest.mark.parametrize(
    ("grad_accum_steps", "sizes"), [(1, [1] * 8), (2, [2] * 4), (3, [3, 3, 2]), (8, [8]), (9, [8]), (100, [8])]
)
def test_a_pass_in_steps_of_microbatches_has_the_same_batches_the_last_step_maybe_fewer(
    grad_accum_steps: int, sizes: list[int]
) -> None:
    loader = make_loader("augmented")
    steps = list(loader.epoch_steps(1, seed=0, grad_accum_steps=grad_accum_steps))
    assert [len(step) for step in steps] == sizes
    assert loader.num_steps(grad_accum_steps) == len(sizes)
    single = [batch for step in loader.epoch_steps(1, seed=0) for batch in step]
    assert plain(batch for step in steps for batch in step) == plain(single)


@pytest.mark.parametrize("len_epoch", [1, 3, 8, 20])
@pytest.mark.parametrize("grad_accum_steps", [1, 3])
def test_epochs_of_a_given_length_cut_one_endless_stream_of_passes(len_epoch: int, grad_accum_steps: int) -> None:
    loader = make_loader("augmented")
    epochs = [
        list(loader.epoch_steps(epoch, seed=0, len_epoch=len_epoch, grad_accum_steps=grad_accum_steps))
        for epoch in range(1, 6)
    ]
    assert all(len(steps) == len_epoch for steps in epochs)
    assert all(len(step) == grad_accum_steps for steps in epochs for step in steps)
    batches = [batch for steps in epochs for step in steps for batch in step]
    passes = (batch for epoch in range(1, 100) for step in loader.epoch_steps(epoch, seed=0) for batch in step)
    assert plain(batches) == plain(islice(passes, len(batches)))


def test_epochs_as_long_as_a_pass_are_the_passes() -> None:
    loader = make_loader("augmented")
    for epoch in (1, 2, 3):
        assert plain(loader.epoch_steps(epoch, seed=0, len_epoch=8)) == plain(loader.epoch_steps(epoch, seed=0))


@pytest.mark.parametrize("kind", ["plain", "augmented", "noisy"])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_iterating_training_and_validation_leaves_the_global_generators_as_they_were(
    kind: str, num_workers: int
) -> None:
    loader = make_loader(kind, num_workers)
    valid = loader.split_validation()
    assert valid is not None
    before = rng_state(CPU)
    assert len(list(loader.epoch_steps(1, seed=0))) + len(list(valid)) == 8 + 2
    loader.peek(3)
    after = rng_state(CPU)
    assert torch.equal(before.pop("torch"), after.pop("torch"))
    assert before == after


@pytest.mark.parametrize("validation_split", [6, 0.25, 1])
def test_training_and_validation_samples_are_disjoint_and_together_all(validation_split: float | int) -> None:
    loader = make_loader("plain", validation_split=validation_split)
    valid = loader.split_validation()
    assert valid is not None
    held_out = [target for _, targets in valid for target in targets.tolist()]
    assert held_out == sorted(held_out)
    assert len(held_out) == (11 if validation_split == 0.25 else validation_split)
    assert sorted(held_out + loader.train_indices().tolist()) == list(range(NUM_SAMPLES))


@pytest.mark.parametrize("split", [0, 0.0])
def test_without_a_split_there_is_no_validation_loader(split: float | int) -> None:
    loader = make_loader("plain", validation_split=split)
    assert loader.split_validation() is None
    assert loader.n_samples == NUM_SAMPLES


def test_validation_batches_are_the_same_in_every_epoch_of_a_noisy_dataset() -> None:
    loader = make_loader("noisy")
    valid = loader.split_validation()
    assert valid is not None
    first = plain(valid)
    list(loader.epoch_steps(2, seed=5))
    assert plain(valid) == first


def test_the_validation_split_comes_from_the_dataset_given_for_it() -> None:
    loader = make_loader("augmented", valid_dataset=TensorBatches(INPUTS, TARGETS))
    valid = loader.split_validation()
    assert valid is not None
    for inputs, targets in valid:
        assert torch.equal(inputs, INPUTS[targets])


@pytest.mark.parametrize("split", [NUM_SAMPLES, 1.0, -1, 0.001])
def test_a_split_that_leaves_nothing_is_refused_with_its_config_path(split: float | int) -> None:
    with pytest.raises(ConfigError, match=r"^data_loader\.args\.validation_split: "):
        make_loader("plain", validation_split=split)


def test_peek_returns_the_first_training_samples_as_a_batch() -> None:
    loader = make_loader("plain")
    inputs, targets = loader.peek(7)
    assert targets.tolist() == loader.train_indices()[:7].tolist()
    assert torch.equal(inputs, INPUTS[targets])


@pytest.mark.parametrize("kind", ["plain", "noisy"])
def test_all_training_samples_come_in_their_own_order_some_at_a_time(kind: str) -> None:
    loader = make_loader(kind)
    targets = [targets for _, targets in loader.train_samples(chunk_size=15)]
    assert [len(chunk) for chunk in targets] == [15, 15, 10]
    assert torch.equal(torch.cat(targets), loader.train_indices())


def test_only_the_samples_asked_for_are_split_and_used() -> None:
    indices = torch.arange(1, NUM_SAMPLES, 3)
    loader = make_loader("plain", validation_split=0.2, indices=indices)
    valid = loader.split_validation()
    assert valid is not None
    held_out = [target for _, targets in valid for target in targets.tolist()]
    assert sorted(held_out + loader.train_indices().tolist()) == indices.tolist()
    assert (loader.n_samples, len(held_out)) == (12, 3)
    assert len(list(loader.epoch_steps(1, seed=0))) == 3


def test_samples_are_put_together_by_the_collate_function_that_is_given() -> None:
    def collate(samples: list[tuple[Tensor, int]]) -> Batch:
        return torch.stack([inputs for inputs, _ in samples]) * 0, -torch.tensor([index for _, index in samples])

    given, default = make_loader("noisy", collate_fn=collate), make_loader("noisy")
    for [(inputs, targets)], [(_, expected)] in zip(given.epoch_steps(1, seed=0), default.epoch_steps(1, seed=0)):
        assert not inputs.any()
        assert torch.equal(targets, -expected)


def test_unshuffled_batches_keep_the_order_of_the_samples() -> None:
    loader = BaseDataLoader(TensorBatches(INPUTS, TARGETS), 5, False, 0, 0)
    batches = [targets for [(_, targets)] in loader.epoch_steps(3, seed=1)]
    assert torch.equal(torch.cat(batches), TARGETS)
    assert [len(batch) for batch in batches] == [5] * 9 + [1]


def test_iterating_it_as_it_stands_gives_whole_batches() -> None:
    loader = make_loader("plain")
    loader.set_epoch(3, 2)
    assert plain(loader) == plain(batch for step in loader.epoch_steps(2, seed=3) for batch in step)
