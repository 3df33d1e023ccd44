"""Datasets that hand out whole batches, and an adapter for those that hand out single samples."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from utils import mix_seed, sample_uniforms
from utils.rng import cpu_rng_kept, seed_cpu

Augment = Callable[[Tensor, Tensor], Tensor]
"""(inputs (N, ...), uniforms (N, 8) float32 in [0, 1)) -> augmented inputs of the same shape."""

Indices = Tensor | list[int]
"""Of the samples of a batch: (N,) int64 on the device of the dataset, or in a worker a list."""

NUM_AUGMENT_DRAWS = 8  # uniform numbers that a sample gets for its augmentation


class BatchDataset(Dataset[Any], ABC):
    """A map-style dataset that torch's DataLoader indexes a batch at a time, through `__getitems__`.

    What is random in a sample must be a function of (`seed`, `epoch`, sample index) alone: then a run gives the same
    batches with any number of workers, and after a stop in the middle of an epoch.
    """

    seed = 0
    epoch = 0
    block_size: int | Tensor | None = None
    """How many samples in a row are best read together, or None; epochs are then shuffled by such blocks.

    Of blocks of several sizes, those of all in their order, (B,) int64.
    """
    window_blocks: int | None = None
    """How many blocks are shuffled together, by default WINDOW_BLOCKS of base/sampling.py."""
    split_cache: Path | None = None
    """Where its splits are kept for the next run, or None; to draw those of 10^7 samples takes 0.2 s."""

    def set_epoch(self, seed: int, epoch: int) -> None:
        """Tell which epoch comes; called before its first batch, in the process that starts the workers."""
        self.seed, self.epoch = seed, epoch

    @abstractmethod
    def __len__(self) -> int:
        """Number of samples."""

    def fingerprint(self) -> str:
        """Return a short text that differs where the data does; by default, the class and the number of samples."""
        return f"{type(self).__name__}:{len(self)}"

    @abstractmethod
    def __getitems__(self, indices: Indices) -> Any:
        """Return what the loader's `collate_fn` makes a batch of."""

    def to(self, device: torch.device) -> None:
        """Hand out batches that are on `device` from now on; a dataset that cannot leaves them where they are."""

    @property
    def device(self) -> torch.device:
        """Where the batches are."""
        return torch.device("cpu")

    def num_bytes(self) -> int | None:
        """Return how much memory `to` takes on the device; None where the dataset cannot be there."""
        return None

    def held_targets(self) -> Tensor | None:
        """Return the targets of all samples, (N, ...), where they are integers held in memory; labels are checked."""
        return None


class TensorBatches(BatchDataset):
    """Inputs (N, ...) and targets (N, ...) held in memory; a batch is one indexing operation."""

    def __init__(self, inputs: Tensor, targets: Tensor) -> None:
        self.inputs = inputs
        self.targets = targets

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitems__(self, indices: Indices) -> tuple[Tensor, Tensor]:
        index = torch.as_tensor(indices, device=self.device)
        return self.inputs.index_select(0, index), self.targets.index_select(0, index)  # half the time of inputs[index]

    def fingerprint(self) -> str:
        """Return a checksum of all inputs and targets."""
        checksum = 0
        for tensor in (self.inputs, self.targets):
            for samples in tensor.split(4096):  # some at a time: of a view, which a copy is made of, all may be large
                checksum = zlib.crc32(samples.cpu().contiguous().numpy().data, checksum)
        return f"{super().fingerprint()}:{checksum:08x}"

    def to(self, device: torch.device) -> None:
        """Keep inputs and targets on `device`; the augmentation is then made there too."""
        self.inputs, self.targets = self.inputs.to(device), self.targets.to(device)

    @property
    def device(self) -> torch.device:
        """Where inputs and targets are."""
        return self.inputs.device

    def num_bytes(self) -> int:
        """Return the size of inputs and targets."""
        return self.inputs.nbytes + self.targets.nbytes

    def held_targets(self) -> Tensor | None:
        """Return the targets, unless they are no labels."""
        return None if self.targets.is_floating_point() else self.targets


class WrappedBatches(BatchDataset):
    """The batches of another dataset, which subclasses change; everything else is as it is there."""

    def __init__(self, dataset: BatchDataset) -> None:
        self.dataset = dataset
        self.block_size, self.window_blocks = dataset.block_size, dataset.window_blocks

    def __len__(self) -> int:
        return len(self.dataset)

    def set_epoch(self, seed: int, epoch: int) -> None:
        """Tell the dataset too."""
        super().set_epoch(seed, epoch)
        self.dataset.set_epoch(seed, epoch)

    def fingerprint(self) -> str:
        """Return that of the dataset: the config has what is changed."""
        return self.dataset.fingerprint()

    def to(self, device: torch.device) -> None:
        """Keep the dataset on `device`."""
        self.dataset.to(device)

    @property
    def device(self) -> torch.device:
        """Where the batches are."""
        return self.dataset.device

    def num_bytes(self) -> int | None:
        """Return how much memory the dataset takes."""
        return self.dataset.num_bytes()

    def held_targets(self) -> Tensor | None:
        """Return those of the dataset."""
        return self.dataset.held_targets()


class AugmentedBatches(WrappedBatches):
    """The batches (inputs, targets) of another dataset, with random augmentation of the inputs, new in each epoch."""

    def __init__(self, dataset: BatchDataset, augment: Augment) -> None:
        super().__init__(dataset)
        self.augment = augment

    def __getitems__(self, indices: Indices) -> tuple[Tensor, Tensor]:
        inputs, targets = self.dataset.__getitems__(indices)
        index = torch.as_tensor(indices, device=inputs.device)
        return self.augment(inputs, sample_uniforms(self.seed, self.epoch, index, NUM_AUGMENT_DRAWS)), targets


class SeededSamples(BatchDataset):
    """An ordinary per-sample dataset whose random transforms are made a function of (seed, epoch, index).

    Seeds Python, NumPy and torch before each sample and puts their states back after the batch, so that the model's
    own random numbers (dropout) do not notice.
    """

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]  # torch's Dataset does not declare it

    def fingerprint(self) -> str:
        """Return the class and the number of samples of the dataset; its content is not read."""
        return f"{type(self.dataset).__name__}:{len(self)}"

    def __getitems__(self, indices: Indices) -> list[Any]:
        with cpu_rng_kept():
            return [self._sample(index) for index in torch.as_tensor(indices).tolist()]

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index]

    def __getattr__(self, name: str) -> Any:
        """Look like the dataset to code that reads its attributes, such as `data_loader.dataset.classes`."""
        if name.startswith("__") or "dataset" not in vars(self):  # while it is being unpickled
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def _sample(self, index: int) -> Any:
        seed_cpu(mix_seed(self.seed, self.epoch, index))
        return self.dataset[index]
