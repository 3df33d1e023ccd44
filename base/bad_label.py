"""Names the samples that training failed at: a loss of torch says that a label is out of range, and not whose."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from base.microbatch import read_batch
from base.sampling import EpochBatchSampler
from utils.errors import DataError
from utils.nested import tensors_of

if TYPE_CHECKING:
    from base.base_trainer import BaseTrainer

OUT_OF_RANGE = re.compile(r"Target (-?\d+) is out of bounds|index (-?\d+) is out of bounds for dimension")


def name_samples(indices: Sequence[int]) -> str:
    """Return the first of the samples, as in "samples 3, 17, 4 of the dataset"."""
    return f"samples {str(list(indices[:16]))[1:-1]}{', …' if len(indices) > 16 else ''} of the dataset"


def raise_if_label(error: Exception, trainer: BaseTrainer) -> None:
    """Raise DataError where `error`, of a training step or a validation batch, is of a label that a sample has."""
    position = trainer.position
    where = f"epoch {position.epoch}, step {position.step_in_epoch}"
    text = (str(error).splitlines() or [""])[0]
    if "device-side assert" in text:  # nothing can be computed or read on the device any more
        hint = "mostly a label or index out of range; with -d cpu, the sample is named"
        raise DataError(f"{where} or some steps before: {text}: {hint}") from error
    found = OUT_OF_RANGE.search(text)
    if found is None or not trainer.loop.is_followed:
        return
    value = int(found[1] or found[2])
    for split, loader, indices in _batches(trainer):
        labels = [tensor for tensor in tensors_of(read_batch(loader, indices)) if not tensor.is_floating_point()]
        if not labels or labels[-1].shape[:1] != indices.shape:
            continue
        places = (labels[-1] == value).nonzero()  # targets come last
        if len(places) > 0:
            sample = int(indices[places[0, 0]])
            near = f"; the step has {name_samples(indices.tolist())}" if split == "training" else ""
            raise DataError(f"{where}: {text}: sample {sample} of the {split} data has label {value}{near}") from error


def _batches(trainer: BaseTrainer) -> Iterator[tuple[str, Any, Tensor]]:
    """Yield the samples of the step that the run is at; then, as an epoch ends with it, the batches of validation."""
    loader, position, options = trainer.loop.loader, trainer.position, trainer.options
    how = {"seed": trainer.config["seed"], "len_epoch": options.len_epoch, "grad_accum_steps": options.grad_accum_steps}
    if indices := loader.step_indices(position.epoch, position.step_in_epoch, **how):
        yield "training", loader, torch.tensor(indices)
    valid: Any = vars(trainer).get("valid_data_loader")
    if isinstance(getattr(valid, "batch_sampler", None), EpochBatchSampler):
        yield from (("validation", valid, indices) for indices in valid.batch_sampler.batches(0, 0, 0))
