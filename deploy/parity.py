"""The proof that an exported model gives the outputs of the model it was made from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from deploy.calls import Call, resized_call
from deploy.formats import Reloaded
from utils.errors import ExportError

TOLERANCE = 1e-5
SIZES = (1, 7, 512)


class Parity(NamedTuple):
    """The largest differences between an exported model's outputs and the model's own, over all batches."""

    absolute: float
    relative: float  # to the output, or to the root mean square of all of its kind where that is larger
    num_batches: int
    num_samples: int


def check_parity(model: nn.Module, exported: Reloaded, calls: Iterable[Call], first: Sequence[Call]) -> Parity:
    """Return how far `exported` is from `model` on all `calls`, and on batches of 1, 7 and 512 samples of `first`.

    Relative is |difference| / max(|output|, rms), where rms is the root mean square of that output over the 512
    samples: an output near zero is rounded as its kind is. Raises ExportError above TOLERANCE, or where shapes,
    dtypes or NaNs differ.
    """
    sized = [resized_call(model, first, size) for size in SIZES]
    scales = [_rms(output) for output in sized[-1].output_tensors()]
    differences = [_checked(exported, call, scales) for call in sized]
    num_batches = num_samples = 0
    for call in calls:
        differences.append(_checked(exported, call, scales))
        num_batches, num_samples = num_batches + 1, num_samples + len(call.tensors()[0])
    absolute, relative = map(max, zip(*differences))
    return Parity(absolute, relative, num_batches, num_samples)


def _checked(exported: Reloaded, call: Call, scales: Sequence[float]) -> tuple[float, float]:
    """Return the largest absolute and relative difference in a call. Raises ExportError above TOLERANCE."""
    size = len(call.tensors()[0])
    try:
        outputs = exported(call)
    except Exception as error:  # of a runtime that takes other shapes than the model
        raise ExportError(f"the exported model fails on {size} samples: {str(error).strip():.300}") from None
    absolute, relative = _differences(outputs, call.output_tensors(), scales)
    if not relative <= TOLERANCE:
        raise ExportError(
            f"the exported model is not the same: on {size} samples its outputs differ by {absolute:.3g}, "
            f"relative {relative:.3g}; allowed: {TOLERANCE:g}"
        )
    return absolute, relative


def _rms(output: Tensor) -> float:
    """Return the root mean square of the finite numbers of `output`, 0 where there are none."""
    finite = output.double()[output.isfinite()]
    return finite.square().mean().sqrt().item() if len(finite) else 0.0


def _differences(outputs: Sequence[Tensor], expected: Sequence[Tensor], scales: Sequence[float]) -> tuple[float, float]:
    """Return the largest absolute and relative difference. Raises ExportError where they are of other kinds."""
    if [(o.shape, o.dtype) for o in outputs] != [(e.shape, e.dtype) for e in expected]:
        found, own = ([f"{t.dtype} {list(t.shape)}" for t in tensors] for tensors in (outputs, expected))
        raise ExportError(f"the exported model is not the same: it gives {found}, the model {own}")
    absolute, relative = 0.0, 0.0
    for output, wanted, scale in zip(outputs, expected, scales):
        a, b = output.double(), wanted.double()
        is_same = (a == b) | (a.isnan() & b.isnan())  # infinities too
        difference = torch.where(is_same, 0.0, (a - b).abs()).nan_to_num(torch.inf, torch.inf)
        share = torch.where(is_same, 0.0, difference / b.abs().nan_to_num(0.0).clamp(min=scale))
        if output.numel():
            absolute, relative = max(absolute, difference.max().item()), max(relative, share.max().item())
    return absolute, relative
