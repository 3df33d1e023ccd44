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
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from base import AugmentedBatches, BaseDataLoader, Microbatch, TensorBatches, counted
from utils import ConfigError, DataError, rng_state, set_rng_state

CPU = torch.device("cpu")
NUM_SAMPLES = 46
INPUTS = torch.arange(2.0 * NUM_SAMPLES).reshape(NUM_SAMPLES, 2)
TARGETS = torch.arange(NUM_SAMPLES)

Batch = tuple[Tensor, Tensor]
Steps = list[list[Microbatch]]


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


def plain(value: Any) -> Any:
    """Turn tensors in nested lists, tuples and iterators into lists, which compare."""
    if isinstance(value, Tensor):
        return value.tolist()
    return value if isinstance(value, int | str | None) else [plain(item) for item in value]


def targets_of(steps: Steps) -> list[list[list[int]]]:
    """Return the targets of each microbatch of each step."""
    return [[targets.tolist() for (_, targets), _ in step] for step in steps]


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


@pytest.mark.parametrize(
    ("kind", "first_step", "len_epoch"), [("augmented", 0, None), ("noisy", 3, None), ("noisy", 4, 6)]
)
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
    (inputs, targets), num_samples = loader.peek(7)
    assert num_samples == 7
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
    for [given_batch], [batch] in zip(given.epoch_steps(1, seed=0), default.epoch_steps(1, seed=0)):
        (inputs, targets), (_, expected) = given_batch.batch, batch.batch
        assert not inputs.any()
        assert torch.equal(targets, -expected)


@pytest.mark.parametrize("indices", [None, torch.arange(1, NUM_SAMPLES, 2)])
@pytest.mark.parametrize("test_split", [0.2, 7])
def test_a_test_split_is_held_out_of_training_and_validation(test_split: float | int, indices: Tensor | None) -> None:
    whole = torch.arange(NUM_SAMPLES) if indices is None else indices
    given: dict[str, Any] = {"indices": indices, "test_split": test_split}
    loader, test = make_loader("plain", **given), make_loader("plain", training=False, **given)
    parts = [loader.train_indices(), loader.valid_indices(), test.train_indices()]
    assert torch.equal(torch.cat(parts).sort().values, whole)
    assert [len(part) for part in parts[1:]] == [6, int(len(whole) * 0.2) if test_split == 0.2 else 7]
    for kwargs in ({}, {"fold": "1/2", "validation_split": 0}, {"sampler": RandomSampler, "split_seed": 3}):
        other = make_loader("plain", training=False, **given | kwargs)
        assert plain(targets for (_, targets), _ in counted(other)) == plain(parts[2].split(5))
        assert other.split_validation() is None


def test_without_a_test_split_the_dataset_is_that_itself_unless_it_is_held_out() -> None:
    assert make_loader("plain", training=False).train_indices().tolist() == list(range(NUM_SAMPLES))
    assert make_loader("plain", test_split=0).n_samples == make_loader("plain").n_samples == 40
    with pytest.raises(DataError, match=r"^data_loader\.args\.test_split is 0: there is no test split"):
        make_loader("plain", training=False, test_split=0)
    with pytest.raises(ConfigError, match=r"^data_loader\.args\.test_split: 46 of 46 samples"):
        make_loader("plain", test_split=NUM_SAMPLES)


def test_unshuffled_batches_keep_the_order_of_the_samples() -> None:
    loader = BaseDataLoader(TensorBatches(INPUTS, TARGETS), 5, False, 0, 0)
    batches = [targets for [((_, targets), _)] in loader.epoch_steps(3, seed=1)]
    assert torch.equal(torch.cat(batches), TARGETS)
    assert [len(batch) for batch in batches] == [5] * 9 + [1]


def batches_of(loader: BaseDataLoader, seed: int, epoch: int) -> Any:
    """Return the batches of an epoch."""
    return plain(microbatch.batch for step in loader.epoch_steps(epoch, seed=seed) for microbatch in step)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_iterating_it_as_it_stands_gives_the_epochs_one_after_the_other(num_workers: int) -> None:
    loader = make_loader("noisy", num_workers)
    expected = [batches_of(make_loader("noisy"), 0, epoch) for epoch in (1, 2, 3)]
    assert [plain(loader), plain(loader), plain(loader)] == expected


def test_the_epoch_that_is_set_comes_with_the_next_pass_and_leaves_the_one_under_way_alone() -> None:
    loader = make_loader("noisy")
    first = iter(loader)
    begun = [next(first)]
    loader.set_epoch(3, 7, 2)
    assert plain([*begun, *first]) == batches_of(make_loader("noisy"), 0, 1)
    assert plain(loader) == batches_of(make_loader("noisy"), 3, 7)[2:]
    assert plain(loader) == batches_of(make_loader("noisy"), 3, 8)


def test_the_next_batch_is_asked_for_once_per_batch_and_by_one_pass_alone() -> None:
    loader, calls = make_loader("plain"), []
    loader.after_batch = lambda: calls.append(1)
    for num_seen, _ in enumerate(loader):
        assert len(calls) == num_seen
    assert len(calls) == 8
    list(loader)
    assert len(calls) == 8


# What a batch is made of is counted by the loader, which knows how many samples it drew.


class Graphs(Dataset[dict[str, Any]]):
    """Graphs of 1 to 4 nodes: a batch is a dict whose tensors are longer than it has samples."""

    def __len__(self) -> int:
        return 13

    def __getitem__(self, index: int) -> dict[str, Any]:
        num_nodes = index % 4 + 1
        return {"nodes": torch.full((num_nodes, 2), float(index)), "label": None, "name": f"graph {index}"}


def join_graphs(graphs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one graph of all nodes."""
    nodes = torch.cat([graph["nodes"] for graph in graphs])
    return {"nodes": nodes, "label": None, "names": [graph["name"] for graph in graphs], "targets": nodes[:, 0]}


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("is_adopted", [False, True])
def test_samples_are_those_that_were_drawn_whatever_a_batch_is(num_workers: int, is_adopted: bool) -> None:
    if is_adopted:
        foreign = DataLoader(Graphs(), 5, shuffle=True, num_workers=num_workers, collate_fn=join_graphs)
        loader: Any = BaseDataLoader.adopt(foreign)
    else:
        loader = BaseDataLoader(Graphs(), 5, True, 0, num_workers, join_graphs)
    microbatches = [microbatch for step in loader.epoch_steps(1, seed=0) for microbatch in step]
    for counted_ones in (microbatches, list(counted(loader))):
        assert [num_samples for _, num_samples in counted_ones] == [5, 5, 3]
        for batch, num_samples in counted_ones:
            assert len(batch["names"]) == num_samples != len(batch["targets"])
    assert loader.peek(4).num_samples == 4


def test_plain_loaders_are_counted_too_and_iterable_datasets_have_nothing_to_count_by() -> None:
    loader = DataLoader(Graphs(), 6, collate_fn=join_graphs)
    assert [num_samples for _, num_samples in counted(loader)] == [6, 6, 1]

    class Stream(IterableDataset[int]):
        def __iter__(self) -> Iterator[int]:
            return iter(range(4))

    with pytest.raises(ConfigError, match=r"^data_loader: Stream has no indices to count samples by$"):
        counted(DataLoader(Stream()))


# The split.


def test_the_samples_given_for_validation_are_held_out() -> None:
    held_out = torch.tensor([3, 4, 5, 40])
    loader = make_loader("plain", validation_split=0, valid_indices=held_out)
    valid = loader.split_validation()
    assert valid is not None
    assert [target for _, targets in valid for target in targets.tolist()] == [3, 4, 5, 40]
    assert loader.valid_indices().tolist() == [3, 4, 5, 40]
    assert sorted([*loader.train_indices().tolist(), 3, 4, 5, 40]) == list(range(NUM_SAMPLES))
    some = make_loader("plain", validation_split=0, indices=torch.arange(10), valid_indices=held_out)
    assert some.train_indices().tolist() == [0, 1, 2, 6, 7, 8, 9]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_dataset_of_its_own_is_validated_whole(num_workers: int) -> None:
    other = TensorBatches(torch.full((7, 2), -1.0), torch.arange(7))
    loader = make_loader("plain", num_workers, validation_split=0, validation_set=other)
    valid = loader.split_validation()
    assert valid is not None
    batches = list(valid)
    assert [len(targets) for _, targets in batches] == [5, 2]
    assert all(bool((inputs == -1).all()) for inputs, _ in batches)
    assert (loader.n_samples, len(loader.valid_indices())) == (NUM_SAMPLES, 7)
    assert [num_samples for _, num_samples in counted(valid)] == [5, 2]


def test_the_split_is_drawn_with_a_seed_of_its_own() -> None:
    splits = [make_loader("plain", split_seed=seed).valid_indices().tolist() for seed in (0, 0, 1)]
    assert splits[0] == splits[1] != splits[2]
    assert splits[0] == make_loader("plain").valid_indices().tolist()


@pytest.mark.parametrize(
    "kwargs",
    [
        {"validation_split": 2, "valid_indices": torch.arange(3)},
        {"validation_split": 0.1, "validation_set": Graphs()},
        {"validation_split": 0, "validation_set": Graphs(), "valid_indices": torch.arange(3)},
        {"validation_split": 2, "sampler": RandomSampler(range(44))},
    ],
    ids=lambda kwargs: " and ".join(kwargs),
)
def test_contradictory_splits_are_refused(kwargs: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"^data_loader\.args: give one of "):
        make_loader("plain", **kwargs)


# Samplers of torch's, given or of a loader that is adopted.

WEIGHTS = [float(i % 3 == 0) + 0.1 for i in range(NUM_SAMPLES)]


class PairSampler(BatchSampler):
    """A batch sampler of one's own: pairs from both ends."""

    def __init__(self, num_samples: int) -> None:
        self.num_samples = num_samples

    def __len__(self) -> int:
        return self.num_samples // 2

    def __iter__(self) -> Iterator[list[int]]:
        yield from ([int(i), self.num_samples - 1 - int(i)] for i in torch.randperm(len(self)))


SAMPLERS: dict[str, Any] = {
    "weighted": lambda samples: WeightedRandomSampler(WEIGHTS[: len(samples)], 23),
    "weighted, with a generator": lambda samples: WeightedRandomSampler(
        WEIGHTS[: len(samples)], 23, generator=torch.Generator().manual_seed(5)
    ),
    "batches": lambda samples: BatchSampler(RandomSampler(range(len(samples))), 4, drop_last=True),
    "batches of its own": lambda samples: PairSampler(len(samples)),
    "a shard": lambda samples: DistributedSampler(TensorDataset(torch.zeros(len(samples))), 2, 1),
    "in order": lambda samples: SequentialSampler(range(len(samples))),
}


def foreign_loader(kind: str, num_workers: int = 0) -> DataLoader[Any]:
    """Return a plain DataLoader over noisy samples, with a sampler or shuffled."""
    if kind == "shuffled":
        return DataLoader(NoisySamples(), 5, shuffle=True, num_workers=num_workers)
    if kind == "shuffled, the last dropped":
        return DataLoader(NoisySamples(), 5, shuffle=True, drop_last=True, num_workers=num_workers)
    sampler = SAMPLERS[kind](range(NUM_SAMPLES))
    if isinstance(sampler, BatchSampler):
        return DataLoader(NoisySamples(), batch_sampler=sampler, num_workers=num_workers)
    return DataLoader(NoisySamples(), 5, sampler=sampler, num_workers=num_workers)


FOREIGN = ["shuffled", "shuffled, the last dropped", *SAMPLERS]


def adopted(kind: str, num_workers: int = 0) -> BaseDataLoader:
    """Return what a run makes of that loader."""
    loader = BaseDataLoader.adopt(foreign_loader(kind, num_workers))
    assert isinstance(loader, BaseDataLoader)
    return loader


@pytest.mark.parametrize("kind", FOREIGN)
def test_an_adopted_loader_has_an_order_of_each_seed_and_epoch_and_starts_anywhere_in_it(kind: str) -> None:
    before = rng_state(CPU)
    whole = batches_of(adopted(kind), 4, 2)
    used = adopted(kind)
    plain(islice(used, 3))
    for first_batch in range(len(whole) + 1):
        torch.rand(3)
        used.set_epoch(4, 2, first_batch)
        assert plain(used) == whole[first_batch:]
    others = [batches_of(adopted(kind), seed, epoch) for seed, epoch in ((4, 1), (4, 3), (5, 2))]
    assert whole not in others
    set_rng_state(before, CPU)
    plain(used)
    assert torch.equal(rng_state(CPU)["torch"], before["torch"])


@pytest.mark.parametrize("kind", FOREIGN)
def test_an_adopted_loader_has_batches_of_the_same_sizes_from_the_same_samples(kind: str) -> None:
    ours, theirs = adopted(kind), foreign_loader(kind)
    sizes = [len(targets) for _, targets in theirs]
    assert [len(targets) for _, targets in ours] == sizes
    assert [num_samples for _, num_samples in counted(adopted(kind))] == sizes
    assert len(ours) == len(theirs) == len(sizes)
    if kind == "in order":
        assert [targets.tolist() for _, targets in ours] == [targets.tolist() for _, targets in theirs]


@pytest.mark.parametrize("kind", ["shuffled", "weighted", "batches"])
def test_workers_change_nothing_of_an_adopted_loader(kind: str) -> None:
    assert plain(adopted(kind, 1)) == plain(adopted(kind))


def test_an_adopted_loader_keeps_the_attributes_and_methods_of_its_class() -> None:
    class Named(DataLoader[Any]):
        def __init__(self, name: str) -> None:
            super().__init__(NoisySamples(), 5)
            self.name = name

        def greeting(self) -> str:
            return f"{self.name} of {len(self.dataset)}"  # type: ignore[arg-type]

    loader = BaseDataLoader.adopt(Named("loader"))
    assert isinstance(loader, Named)
    assert isinstance(loader, BaseDataLoader)
    assert loader.greeting() == f"loader of {NUM_SAMPLES}"
    assert BaseDataLoader.adopt(loader) is loader


def test_an_adopted_loader_of_ready_batches_does_not_batch_them() -> None:
    class Batches(Dataset[Batch]):
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> Batch:
            return INPUTS[index * 5 : index * 5 + 5], TARGETS[index * 5 : index * 5 + 5]

    loader = DataLoader(Batches(), batch_size=None)
    assert plain(BaseDataLoader.adopt(loader)) == plain(loader)


@pytest.mark.parametrize("kind", SAMPLERS)
def test_a_sampler_draws_from_the_training_split(kind: str) -> None:
    loader = make_loader("plain", validation_split=6, sampler=SAMPLERS[kind])
    held_out = set(loader.valid_indices().tolist())
    for epoch in (1, 2):
        drawn = targets_of(list(loader.epoch_steps(epoch, seed=0)))
        assert len(drawn) == len(loader)
        assert not held_out & {target for step in drawn for batch in step for target in batch}
        for first_step in range(len(drawn)):
            assert targets_of(list(loader.epoch_steps(epoch, first_step, seed=0))) == drawn[first_step:]
    assert loader.step_indices(2, 1, seed=0) == drawn[1][0]


def test_epochs_of_a_given_length_go_on_over_the_passes_of_a_sampler() -> None:
    loader = make_loader("plain", sampler=SAMPLERS["weighted"])  # 5 batches a pass
    epochs = [targets_of(list(loader.epoch_steps(epoch, seed=0, len_epoch=3))) for epoch in (1, 2, 3)]
    passes = [targets_of(list(loader.epoch_steps(epoch, seed=0))) for epoch in (1, 2)]
    assert [step for steps in epochs for step in steps] == [step for steps in passes for step in steps][:9]


def test_an_adopted_loader_keeps_the_options_of_its_workers_or_says_which_it_drops(
    caplog: pytest.LogCaptureFixture,
) -> None:
    data = TensorDataset(torch.arange(8))
    plain = DataLoader(data, 2, num_workers=1, timeout=30, prefetch_factor=3)
    adopted = BaseDataLoader.adopt(plain)
    assert (adopted.timeout, adopted.prefetch_factor, adopted.persistent_workers) == (30, 3, False)
    assert [batch[0].tolist() for batch in adopted] == [batch[0].tolist() for batch in plain]
    assert caplog.text == ""
    assert not BaseDataLoader.adopt(DataLoader(data, 2, num_workers=1, persistent_workers=True)).persistent_workers
    assert "persistent_workers has no effect" in caplog.text
