"""The loader that yours subclasses: batches in a reproducible order, and the validation and test splits."""

from __future__ import annotations

import logging
import os
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, Sampler, default_collate

from base.datasets import BatchDataset, SeededSamples
from base.kept_workers import KeptWorkers
from base.microbatch import Microbatch, first_samples
from base.new_inputs import NewInputs
from base.sampling import DrawnBatchSampler, EpochBatchSampler, epoch_steps
from base.splits import WHERE, split_samples
from utils import CheckpointError, ConfigError, mix_seed
from utils.annotations import Fold, NumWorkers
from utils.signals import init_worker

MAX_SHARE_OF_DEVICE = 0.25  # of its free memory, for data that is kept there without being asked to


def keep_batch(batch: Any) -> Any:
    """The `collate_fn` of a dataset whose `__getitems__` returns finished batches."""
    return batch


class BaseDataLoader(DataLoader[Any]):
    """A DataLoader whose batches depend on (seed, epoch) alone and that can start in the middle of an epoch.

    A batch is whatever trainer/batch.py takes apart. A dataset that is a BatchDataset gives whole batches, and
    `collate_fn` is then `keep_batch` unless another is given; any other map-style dataset gives samples, which are
    collated. Whoever simply iterates gets another order each time; in `train`, that of the run's position.

    A subclass takes `training: bool = True` and passes it on: with False it holds the test split, whole and in its own
    order, and `shuffle`, `sampler` and all that holds out for validation have no effect. The test split is the whole
    dataset; or, where a number is given, `test_split` of it (a fraction, or a count), always the same samples.

    The values that open arguments, such as a `source` of "auto", resolved to, a subclass leaves in `resolved_args`,
    which go into the config of the run. It may have a method `facts() -> dict`: values such as class counts, given to
    the models, losses and metrics that take an argument of that name, in training and in test. Its `new_inputs` says
    how new inputs are read.

    What is held out for validation is a `validation_split` (a fraction of the samples, or a count) drawn with
    `split_seed`; or fold "K/N", of which each sample is in one, with an even share of every class where the dataset
    holds class indices in memory; or the samples `valid_indices`, (M,) int64; or a dataset of its own,
    `validation_set`. Give `valid_dataset`, which has the same samples as `dataset`, where `dataset` augments and
    validation should not.
    """

    num_classes: int | None = None
    """Of the targets, where they are class indices and a subclass knows; the config is checked against it."""
    dataset: BatchDataset
    batch_sampler: EpochBatchSampler
    generator: torch.Generator
    after_batch: Callable[[], None] | None = None
    """Called when the batch after the first is asked for, and so on: nothing of the last one is under way then."""
    _valid_loader: Any = None
    _upcoming = (0, 1, 0)  # seed, epoch and first batch of the next iteration

    def __init__(
        self,
        dataset: Dataset[Any],
        batch_size: int,
        shuffle: bool,
        validation_split: float | int,
        num_workers: NumWorkers,
        collate_fn: Callable[[Any], Any] | None = None,
        *,
        training: bool = True,
        test_split: float | int | None = None,
        valid_dataset: Dataset[Any] | None = None,
        validation_set: Dataset[Any] | None = None,
        indices: Tensor | None = None,
        valid_indices: Tensor | None = None,
        split_seed: int = 0,
        fold: Fold | None = None,
        sampler: Sampler[Any] | Callable[[Tensor], Sampler[Any]] | None = None,
        keep_workers: bool = False,
    ) -> None:
        """Use the samples `indices`, (N,) int64, of `dataset`, by default all.

        `sampler` draws the training samples, by their positions in the training split, (n,) int64, that the function
        gets; with nothing held out it may be a sampler of torch's. With `keep_workers` workers live for all epochs; a
        BatchDataset then keeps no more of an epoch than `set_epoch` sets. Raises ConfigError for wrong arguments, and
        DataError where the test split is asked for and `test_split` is 0.
        """
        _check_args(batch_size, validation_split, valid_indices, validation_set, sampler)
        shuffle, sampler = shuffle and training, sampler if training else None
        samples, valid_dataset, valid_indices = split_samples(
            *(dataset, training, test_split, validation_split, valid_dataset, validation_set),
            *(indices, valid_indices, split_seed, fold),
        )
        self.init_kwargs = _published_kwargs(dataset, batch_size, shuffle, num_workers, collate_fn)
        self.resolved_args: dict[str, Any] = {}
        self.num_workers_asked, self._keep_workers = num_workers, keep_workers and num_workers > 0
        self._collate, self._valid = collate_fn, (valid_dataset, valid_indices, batch_size)
        # Not super(): in an adopted loader that is the class of a fork, which takes other arguments.
        DataLoader.__init__(self, **self._options(dataset, samples, batch_size, shuffle, sampler))
        self.__dict__["batch_size"] = batch_size  # torch leaves None beside a batch_sampler, and guards the name

    @classmethod
    def new_inputs(cls, args: Mapping[str, Any], facts: Mapping[str, Any]) -> NewInputs:
        """Return what turns new inputs, without targets, into the model's, exactly as training and test did.

        `args` are the loader's own in the config of the trained run, with the objects that it names, such as
        transforms; `facts` are what its training data said. No training data is there. By default new inputs are
        tensors.
        """
        return NewInputs()

    @property
    def n_samples(self) -> int:
        """The number of samples that are trained on, or in the test split."""
        return len(self.train_indices())

    @classmethod
    def adopt(cls, loader: DataLoader[Any]) -> DataLoader[Any]:
        """Return a loader of the same batches as any DataLoader's that can start in the middle of an epoch.

        It has the loader's attributes and methods too. One over an IterableDataset, or without batches, is returned as
        it is.
        """
        if isinstance(loader, cls) or isinstance(loader.dataset, IterableDataset) or loader.batch_sampler is None:
            return loader
        adopted: BaseDataLoader = object.__new__(type(type(loader).__name__, (cls, type(loader)), {}))
        is_own = type(loader.batch_sampler) is not BatchSampler or loader.drop_last or loader.batch_size is None
        sampler: Any = loader.batch_sampler if is_own else loader.sampler
        size = loader.batch_size or 1
        BaseDataLoader.__init__(
            adopted, loader.dataset, size, False, 0, loader.num_workers, loader.collate_fn, sampler=sampler
        )
        adopted.worker_init_fn = partial(init_worker, loader.worker_init_fn)
        adopted.timeout, adopted.prefetch_factor = loader.timeout, loader.prefetch_factor
        if loader.persistent_workers:  # they would draw each epoch's random numbers as in the first
            logging.getLogger("data").warning("persistent_workers has no effect: workers are started for each epoch")
        for name, value in vars(loader).items():
            adopted.__dict__.setdefault(name, value)
        return adopted

    def __iter__(self) -> Any:
        """Yield the batches of the next pass: the one that `set_epoch` named, and after it those that follow."""
        seed, epoch, first_batch = self._upcoming
        self.set_epoch(seed, epoch + 1)
        self._start(seed, epoch, first_batch)
        after_batch, self.after_batch = self.after_batch, None  # a run cannot resume in a second pass of one epoch
        for batch in DataLoader.__iter__(self):
            yield batch
            if after_batch is not None:
                after_batch()

    def epoch_steps(
        self, epoch: int, first_step: int = 0, *, seed: int, len_epoch: int | None = None, grad_accum_steps: int = 1
    ) -> Iterator[list[Microbatch]]:
        """Yield the microbatches of each optimizer step of `epoch`, from `first_step` on (see base/sampling.py).

        Raises CheckpointError where the epoch has no such step: a checkpoint says where to begin.
        """
        num_steps = len_epoch or self.num_steps(grad_accum_steps)
        if first_step > num_steps:
            raise CheckpointError(f"the checkpoint is at step {first_step} of an epoch of {num_steps}")
        num_parts = self.batch_sampler.share.num_parts
        return epoch_steps(
            partial(self._pass, seed), len(self), epoch, first_step, len_epoch, grad_accum_steps, num_parts
        )

    def step_indices(
        self, epoch: int, step: int, *, seed: int, len_epoch: int | None = None, grad_accum_steps: int = 1
    ) -> list[int]:
        """Return the dataset indices of the samples of one optimizer step, without reading them; [] after the last."""
        batches = partial(self.batch_sampler.batches, seed)
        steps = epoch_steps(batches, len(self), epoch, step, len_epoch, grad_accum_steps)
        return [index for batch in next(steps, []) for index in batch.tolist()]

    def num_steps(self, grad_accum_steps: int = 1) -> int:
        """Return the number of optimizer steps in one pass over the data."""
        return -(-len(self) // grad_accum_steps)

    def set_epoch(self, seed: int, epoch: int, first_batch: int = 0) -> None:
        """Make the next iteration yield the batches of `epoch` from `first_batch` on."""
        self._upcoming = (seed, epoch, first_batch)

    def split_validation(self) -> DataLoader[Any] | None:
        """Return the loader of the held-out samples, in their own order, or None where none are held out."""
        dataset, indices, batch_size = self._valid
        if len(indices) == 0:
            return None
        self._valid_loader = DataLoader(**self._options(dataset, indices, batch_size, shuffle=False))
        return self._valid_loader

    def unshuffled(self) -> DataLoader[Any]:
        """Return a loader of the same samples, each once and in their own order, whatever drew them here."""
        return DataLoader(**self._options(self.dataset, self.train_indices(), self.batch_size or 1, shuffle=False))

    def overfit(self, num_batches: int) -> DataLoader[Any]:
        """Train on the first `num_batches` batches alone, unshuffled; return a loader of the same for validation."""
        indices = self.train_indices()[: num_batches * self.batch_sampler.batch_size]
        options = self._options(self._valid[0], indices, self.batch_sampler.batch_size, shuffle=False)
        self.__dict__["batch_sampler"] = options["batch_sampler"]  # torch guards the name
        self._valid_loader = DataLoader(**options)
        return self._valid_loader

    def train_indices(self) -> Tensor:
        """(N,) int64: the samples of the dataset that are trained on."""
        return self.batch_sampler.indices

    def valid_indices(self) -> Tensor:
        """(N,) int64: the samples that are held out for validation, of `valid_dataset` or `validation_set` if given."""
        return self._valid[1]

    def fingerprint(self) -> str:
        """Return a short text that differs where the training data or its split does."""
        return f"{self.dataset.fingerprint()}:{zlib.crc32(self.train_indices().numpy().data):08x}"

    def peek(self, num_samples: int, start: int = 0) -> Microbatch:
        """Return a batch of a few training samples, by default the first ones, read in this process."""
        return first_samples(self, num_samples, start)

    def place(self, device: torch.device, is_resident: bool | Literal["auto"] = "auto") -> bool:
        """Keep the dataset on `device`; or else pin its batches, so that copying does not hold up computing.

        Return whether it is kept there. "auto" keeps it on a GPU where no workers read it and it takes at most a
        quarter of the free memory. Raises ConfigError where `is_resident` is True and the dataset cannot be there.
        """
        num_bytes = None if self.num_workers_asked else self.dataset.num_bytes()
        if is_resident is True and num_bytes is None:
            name = type(self.dataset).__name__
            reason = "workers read it" if self.num_workers_asked else f"{name} hands out CPU batches"
            raise ConfigError(f"trainer.device_resident: the data cannot be kept on {device}: {reason}")
        if is_resident == "auto":
            free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
            is_resident = num_bytes is not None and num_bytes <= MAX_SHARE_OF_DEVICE * free
        for loader in [self, self._valid_loader] if self._valid_loader else [self]:
            if is_resident and loader.dataset.num_bytes() is not None:
                loader.dataset.to(device)
                loader.batch_sampler.device = device
            else:
                loader.pin_memory = device.type == "cuda"
        return is_resident

    def train_samples(self, chunk_size: int = 1 << 16) -> Iterator[Any]:
        """Yield all training samples once in batches of `chunk_size`, in their own order, read in this process."""
        for indices in self.train_indices().split(chunk_size):
            yield self.collate_fn(self.dataset.__getitems__(indices))

    def _start(self, seed: int, epoch: int, first_batch: int) -> None:
        self.generator.manual_seed(mix_seed(seed, epoch))
        self.dataset.set_epoch(seed, epoch)
        self.batch_sampler.set_epoch(seed, epoch, first_batch)

    def _pass(self, seed: int, epoch: int, first_batch: int) -> Iterator[Microbatch]:
        self._start(seed, epoch, first_batch)
        if self.num_workers or self.pin_memory:
            yield from map(Microbatch, DataLoader.__iter__(self), self.batch_sampler.sizes())
        else:  # what torch's iterator does too, and takes a percent of a small step for
            for indices, size in zip(self.batch_sampler, self.batch_sampler.sizes()):
                yield Microbatch(self.collate_fn(self.dataset.__getitems__(indices)), size)

    def _options(
        self, dataset: Dataset[Any], indices: Tensor, batch_size: int, shuffle: bool, sampler: Any = None
    ) -> dict[str, Any]:
        batched, as_lists = _batched(dataset), self.num_workers_asked > 0
        if sampler is None:
            blocks: dict[str, Any] = {"block_size": batched.block_size, "window_blocks": batched.window_blocks}
            batch_sampler = EpochBatchSampler(indices, batch_size, shuffle, as_lists=as_lists, **blocks)
        else:
            drawn_by = sampler if isinstance(sampler, Sampler) else sampler(indices)
            batch_sampler = DrawnBatchSampler(drawn_by, indices, batch_size, as_lists=as_lists)
        is_forked = self.num_workers_asked > 0 and sys.platform == "linux" and hasattr(os, "fork")
        return {
            "dataset": KeptWorkers(batched) if self._keep_workers else batched,
            "persistent_workers": self._keep_workers,
            "batch_sampler": batch_sampler,
            "num_workers": self.num_workers_asked,
            "collate_fn": self._collate or (default_collate if isinstance(batched, SeededSamples) else keep_batch),
            # Python 3.14 starts workers through a server; a trainer that is killed leaves server and workers behind.
            "multiprocessing_context": "fork" if is_forked else None,
            "worker_init_fn": partial(init_worker, None),
            # A generator of its own: without one, iterating draws from the global one, which the model uses too.
            "generator": torch.Generator(),
        }


def _check_args(
    batch_size: Any, validation_split: float, valid_indices: Tensor | None, validation_set: object, sampler: object
) -> None:
    """Raise ConfigError where the arguments of a loader contradict each other."""
    if not isinstance(batch_size, int):  # not of a command that trains
        raise ConfigError(f"{WHERE}.batch_size: {batch_size!r} is for training; give a number")
    held_out = [bool(validation_split), valid_indices is not None, validation_set is not None]
    if sum(held_out) > 1 or (any(held_out) and isinstance(sampler, Sampler)):
        raise ConfigError(
            f"{WHERE}: give one of validation_split, valid_indices and validation_set, and with one of them a "
            f"sampler as a function of the training indices"
        )


def _published_kwargs(
    dataset: Any, batch_size: int, shuffle: bool, num_workers: int, collate_fn: Any
) -> dict[str, Any]:
    """Return the published template's `init_kwargs`, with which forks make loaders of their own."""
    kwargs = {"dataset": dataset, "batch_size": batch_size, "shuffle": shuffle, "num_workers": num_workers}
    return {**kwargs, "collate_fn": collate_fn or default_collate}


def _batched(dataset: Dataset[Any]) -> BatchDataset:
    return dataset if isinstance(dataset, BatchDataset) else SeededSamples(dataset)


def counted(loader: DataLoader[Any]) -> Iterator[Microbatch]:
    """Yield the batches of a loader, each with the number of samples that it was drawn from.

    Raises ConfigError for a loader over an IterableDataset, whose batches are drawn from no indices.
    """
    if not isinstance(loader.batch_sampler, EpochBatchSampler):
        loader = BaseDataLoader.adopt(loader)
    if not isinstance(loader.batch_sampler, EpochBatchSampler):
        raise ConfigError(f"data_loader: {type(loader.dataset).__name__} has no indices to count samples by")
    return map(Microbatch, loader, loader.batch_sampler.sizes())
