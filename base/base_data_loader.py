"""The loader that yours subclasses: batches in a reproducible order, and the validation and test splits."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from base.batch_dataset import BatchDataset, SeededSamples
from utils import ConfigError, EpochBatchSampler, epoch_steps, mix_seed, split_indices

MAX_SHARE_OF_DEVICE = 0.25  # of its free memory, for data that is kept there without being asked to


def keep_batch(batch: Any) -> Any:
    """The `collate_fn` of a dataset whose `__getitems__` returns finished batches."""
    return batch


class BaseDataLoader(DataLoader[Any]):
    """A DataLoader whose batches depend on (seed, epoch) alone and that can start in the middle of an epoch.

    A batch is `(inputs, targets)`. A dataset that is a BatchDataset gives whole batches, and `collate_fn` is then
    `keep_batch` unless another is given; any other map-style dataset gives samples, which are collated.

    A subclass takes `training: bool = True`: with False it holds the test split, whole and unshuffled. What it made of
    open arguments, such as a `source` of "auto", it leaves in `resolved_args`, which go into the config of the run.
    """

    num_classes: int | None = None
    """Of the targets, where they are class indices and a subclass knows; the config is checked against it."""
    dataset: BatchDataset
    batch_sampler: EpochBatchSampler
    generator: torch.Generator

    def __init__(
        self,
        dataset: Dataset[Any],
        batch_size: int,
        shuffle: bool,
        validation_split: float | int,
        num_workers: int,
        collate_fn: Callable[[Any], Any] | None = None,
        *,
        valid_dataset: Dataset[Any] | None = None,
        indices: Tensor | None = None,
    ) -> None:
        """Hold out `validation_split` (a fraction of the samples, or a count) for `split_validation`.

        `indices`, (N,) int64, are the samples to use of `dataset`, by default all. `valid_dataset` has the same samples
        as `dataset` and serves the validation split; give it where `dataset` augments. Raises ConfigError where the
        split leaves nothing to train on.
        """
        if not isinstance(batch_size, int):  # not of a command that trains
            raise ConfigError(f"data_loader.args.batch_size: {batch_size!r} is for training; give a number")
        num_samples = len(dataset if indices is None else indices)  # type: ignore[arg-type]  # Dataset declares none
        where = "data_loader.args.validation_split"
        train_indices, valid_indices = split_indices(num_samples, validation_split, where, indices=indices)
        self.resolved_args: dict[str, Any] = {}
        self.num_workers_asked = num_workers
        self._collate = collate_fn
        self._valid = (dataset if valid_dataset is None else valid_dataset, valid_indices, batch_size)
        self._valid_loader: Any = None
        self.n_samples = len(train_indices)
        super().__init__(**self._options(dataset, train_indices, batch_size, shuffle))
        self.__dict__["batch_size"] = batch_size  # torch leaves None beside a batch_sampler, and guards the name

    def epoch_steps(
        self, epoch: int, first_step: int = 0, *, seed: int, len_epoch: int | None = None, grad_accum_steps: int = 1
    ) -> Iterator[list[Any]]:
        """Yield the microbatches of each optimizer step of `epoch`, from `first_step` on (see utils.epoch_steps)."""
        return epoch_steps(partial(self._pass, seed), len(self), epoch, first_step, len_epoch, grad_accum_steps)

    def step_indices(
        self, epoch: int, step: int, *, seed: int, len_epoch: int | None = None, grad_accum_steps: int = 1
    ) -> list[int]:
        """Return the dataset indices of the samples of one optimizer step, without reading them."""
        batches = partial(self.batch_sampler.batches, seed)
        steps = epoch_steps(batches, len(self), epoch, step, len_epoch, grad_accum_steps)
        return [index for batch in next(steps) for index in batch.tolist()]

    def num_steps(self, grad_accum_steps: int = 1) -> int:
        """Return the number of optimizer steps in one pass over the data."""
        return -(-len(self) // grad_accum_steps)

    def set_epoch(self, seed: int, epoch: int, first_batch: int = 0) -> None:
        """Make the next iteration yield the batches of `epoch` from `first_batch` on."""
        self.generator.manual_seed(mix_seed(seed, epoch))
        self.dataset.set_epoch(seed, epoch)
        self.batch_sampler.set_epoch(seed, epoch, first_batch)

    def split_validation(self) -> DataLoader[Any] | None:
        """Return the loader of the held-out samples, in their own order, or None where none are held out."""
        dataset, indices, batch_size = self._valid
        if len(indices) == 0:
            return None
        self._valid_loader = DataLoader(**self._options(dataset, indices, batch_size, shuffle=False))
        return self._valid_loader

    def overfit(self, num_batches: int) -> DataLoader[Any]:
        """Train on the first `num_batches` batches alone, unshuffled; return a loader of the same for validation."""
        sampler = self.batch_sampler
        sampler.indices, sampler.shuffle = sampler.indices[: num_batches * sampler.batch_size], False
        self.n_samples = len(sampler.indices)
        options = self._options(self._valid[0], sampler.indices, sampler.batch_size, shuffle=False)
        self._valid_loader = DataLoader(**options)
        return self._valid_loader

    def train_indices(self) -> Tensor:
        """(N,) int64: the samples of the dataset that are trained on."""
        return self.batch_sampler.indices

    def fingerprint(self) -> str:
        """Return a short text that differs where the training data or its split does."""
        return f"{self.dataset.fingerprint()}:{zlib.crc32(self.train_indices().numpy().data):08x}"

    def peek(self, num_samples: int) -> Any:
        """Return a batch of the first few training samples, read in this process."""
        return self.collate_fn(self.dataset.__getitems__(self.train_indices()[:num_samples]))

    def place(self, device: torch.device, is_resident: bool | Literal["auto"] = "auto") -> bool:
        """Keep the dataset on `device`; or else pin its batches, so that copying does not hold up computing.

        Return whether it is kept there.

        "auto" keeps it on a GPU where no workers read it and it takes at most a quarter of the free memory.
        Raises ConfigError where `is_resident` is True and the dataset cannot be on a device.
        """
        num_bytes = None if self.num_workers_asked else self.dataset.num_bytes()
        if is_resident is True and num_bytes is None:
            what = (
                "workers read it" if self.num_workers_asked else f"{type(self.dataset).__name__} hands out CPU batches"
            )
            raise ConfigError(f"trainer.device_resident: the data cannot be kept on {device}: {what}")
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

    def _pass(self, seed: int, epoch: int, first_batch: int) -> Iterator[Any]:
        self.set_epoch(seed, epoch, first_batch)
        if self.num_workers or self.pin_memory:
            yield from self
        else:  # what torch's iterator does too, and takes a percent of a small step for
            for indices in self.batch_sampler:
                yield self.collate_fn(self.dataset.__getitems__(indices))

    def _options(self, dataset: Dataset[Any], indices: Tensor, batch_size: int, shuffle: bool) -> dict[str, Any]:
        is_batched = isinstance(dataset, BatchDataset)
        block_size = dataset.block_size if isinstance(dataset, BatchDataset) else None
        return {
            "dataset": dataset if is_batched else SeededSamples(dataset),
            "batch_sampler": EpochBatchSampler(
                indices, batch_size, shuffle, as_lists=self.num_workers_asked > 0, block_size=block_size
            ),
            "num_workers": self.num_workers_asked,
            "collate_fn": self._collate or (keep_batch if is_batched else default_collate),
            # Python 3.14 starts workers through a server; a trainer that is killed leaves server and workers behind.
            "multiprocessing_context": "fork" if self.num_workers_asked and sys.platform == "linux" else None,
            # A generator of its own: without one, iterating draws from the global one, which the model uses too.
            "generator": torch.Generator(),
        }
