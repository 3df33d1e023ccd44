"""State that can be saved and loaded, and the check that weights are the model's before any is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from utils.errors import CheckpointError, printable


@runtime_checkable
class Stateful(Protocol):
    """What a checkpoint can hold a part of."""

    def state_dict(self) -> Any:
        """Return plain data."""

    def load_state_dict(self, state: Any) -> Any:
        """Restore what `state_dict` returned."""


def load_weights(model: nn.Module, weights: dict[str, Any], where: str) -> None:
    """Load `weights` into `model` after checking that names, shapes and dtypes are the model's own.

    Raises CheckpointError, which begins with `where` and names the first few that do not fit.
    """
    own = model.state_dict()
    problems = [f"{name} is missing" for name in own.keys() - weights.keys()]
    problems += [f"{printable(name)} is not in the model" for name in weights.keys() - own.keys()]
    for name in own.keys() & weights.keys():
        saved, wanted = weights[name], own[name]
        if not isinstance(wanted, torch.Tensor):  # get_extra_state of a module: its own affair
            continue
        if not isinstance(saved, torch.Tensor):
            problems.append(f"{name} is not a tensor")
        elif (saved.shape, saved.dtype) != (wanted.shape, wanted.dtype):
            found, expected = (f"{tensor.dtype} {list(tensor.shape)}" for tensor in (saved, wanted))
            problems.append(f"{name} is {found}, the model's is {expected}")
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise CheckpointError(f"{where}: does not fit the model: {'; '.join(sorted(problems)[:3])}{more}")
    try:
        model.load_state_dict(weights)
    except Exception as error:  # of a module's own, at what it alone knows, such as a state beside its tensors
        raise CheckpointError(f"{where}: does not fit the model: {printable(error)}") from None


@contextmanager
def buffers_kept(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Put the buffers of `modules`, and of all modules in them, back afterwards, with the values that they had."""
    owners = [owner for module in modules for owner in module.modules()]
    named = [(owner, name, buffer) for owner in owners for name, buffer in owner.named_buffers(recurse=False)]
    before = [(owner, name, buffer, buffer.clone()) for owner, name, buffer in named]
    try:
        yield
    finally:
        for owner, name, buffer, value in before:
            setattr(owner, name, buffer)  # a model may have put another in its place
            with torch.no_grad():
                buffer.copy_(value)
