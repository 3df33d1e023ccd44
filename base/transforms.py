"""Transforms of single samples, such as torchvision's, as a function of (seed, epoch, sample index)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from base.datasets import BatchDataset, Indices
from utils import ConfigError, mix_seed
from utils.rng import cpu_rng_kept, seed_cpu


class TransformedBatches(BatchDataset):
    """The batches (inputs, targets) of another dataset, each input put through `transforms`, one after the other.

    Python, NumPy and torch are seeded before each sample, and put back after the batch. The batches are on the CPU.
    """

    def __init__(
        self,
        dataset: BatchDataset,
        transforms: Sequence[nn.Module],
        where: str,
        finish: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        """`where` is the config path of the transforms; `finish`, if given, is applied to the inputs of a batch."""
        self.dataset = dataset
        self.transforms = list(transforms)
        self.where = where
        self.finish = finish
        self.block_size, self.window_blocks = dataset.block_size, dataset.window_blocks

    def __len__(self) -> int:
        return len(self.dataset)

    def set_epoch(self, seed: int, epoch: int) -> None:
        """Tell the dataset too."""
        super().set_epoch(seed, epoch)
        self.dataset.set_epoch(seed, epoch)

    def __getitems__(self, indices: Indices) -> tuple[Tensor, Tensor]:
        """Raise ConfigError where a transform fails, or the results are not tensors of one shape."""
        inputs, targets = self.dataset.__getitems__(indices)
        with cpu_rng_kept():
            samples = [self._sample(i, sample) for i, sample in zip(torch.as_tensor(indices).tolist(), inputs)]
        kinds = sorted({_kind(sample) for sample in samples})
        if len(kinds) != 1 or not isinstance(samples[0], Tensor):
            raise ConfigError(f"{self.where}: must end with tensors of one shape; these are {' and '.join(kinds)}")
        stacked = torch.stack(samples)
        return stacked if self.finish is None else self.finish(stacked), targets

    def _sample(self, index: int, sample: Tensor) -> Tensor:
        seed_cpu(mix_seed(self.seed, self.epoch, index))
        for number, transform in enumerate(self.transforms):
            try:
                sample = transform(sample)
            except Exception as error:
                if not type(transform).__module__.startswith("torch"):  # a bug of the project's own stays one
                    raise
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                name = type(transform).__name__
                raise ConfigError(f"{self.where}[{number}]: {name} does not take {_kind(sample)}: {reason}") from None
        return sample

    def fingerprint(self) -> str:
        """Return that of the dataset: the config has the transforms."""
        return self.dataset.fingerprint()

    def held_targets(self) -> Tensor | None:
        """Return those of the dataset."""
        return self.dataset.held_targets()


def _kind(sample: object) -> str:
    return f"{sample.dtype} {list(sample.shape)}" if isinstance(sample, Tensor) else type(sample).__name__
