"""Loading what a checkpoint holds into the parts of a run; it may come from a stranger, so it is checked before."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import nn

from utils.errors import CheckpointError

MALFORMED = (LookupError, TypeError, ValueError, ArithmeticError, RuntimeError, AttributeError)
"""What torch and we stumble over in a state that is none."""


class Stateful(Protocol):
    """What a checkpoint can hold a part of."""

    def state_dict(self) -> Any:
        """Return plain data."""

    def load_state_dict(self, state: Any) -> Any:
        """Restore what `state_dict` returned."""


def load_weights(model: nn.Module, weights: dict[str, Any], where: str) -> None:
    """Load `weights` into `model` after checking that names, shapes and dtypes are the model's own.

    Raises CheckpointError, which begins with `where` and tells the first few that do not fit.
    """
    own = model.state_dict()
    problems = [f"{name} is missing" for name in own.keys() - weights.keys()]
    problems += [f"{name} is not in the model" for name in weights.keys() - own.keys()]
    for name in own.keys() & weights.keys():
        saved, wanted = weights[name], own[name]
        if not isinstance(saved, torch.Tensor):
            problems.append(f"{name} is no tensor")
        elif (saved.shape, saved.dtype) != (wanted.shape, wanted.dtype):
            is_so, should_be = (f"{tensor.dtype} {list(tensor.shape)}" for tensor in (saved, wanted))
            problems.append(f"{name} is {is_so}, the model's is {should_be}")
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise CheckpointError(f"{where}: does not fit the model: {'; '.join(sorted(problems)[:3])}{more}")
    model.load_state_dict(weights)


def load_part(part: Any, state: Any, where: str) -> None:
    """Load `state` into a part of a run: a module, an optimizer, or whatever has `load_state_dict`.

    Raises CheckpointError, which begins with `where`, unless the state is one of such a part: of the same keys and,
    for modules and optimizers, of fitting shapes.
    """
    own = part.state_dict()
    if not isinstance(state, dict) or (state.keys() != own.keys() and not isinstance(part, nn.Module)):
        raise CheckpointError(f"{where}: missing or of other keys than this run's")
    if isinstance(part, nn.Module):
        load_weights(part, state, where)
        return
    try:
        if isinstance(part, torch.optim.Optimizer):
            _check_optimizer_state(part, state)
        part.load_state_dict(state)
    except MALFORMED as error:
        raise CheckpointError(f"{where}: does not fit: {type(error).__name__}: {error}") from None


def _check_optimizer_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Raise ValueError for what torch would load, or copy in full, and then stumble over.

    A tensor of an optimizer is a number, or of its parameter's shape, or broadcasts to it (Adafactor's factors).
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, values in state["state"].items():
        wanted = list(parameters[index].shape)
        for name, value in values.items():
            if isinstance(value, torch.Tensor) and value.dim() > 0:
                saved = list(value.shape)
                if len(saved) != len(wanted) or any(size not in (1, full) for size, full in zip(saved, wanted)):
                    raise ValueError(f"{name} is {saved} for a weight {wanted}")
            elif not isinstance(value, torch.Tensor | int | float | None):
                raise ValueError(f"{name} is a {type(value).__name__}")
    for own, group in zip(optimizer.param_groups, state["param_groups"], strict=True):
        for key, value in group.items():
            if isinstance(own.get(key), int | float) and not isinstance(value, int | float):
                raise ValueError(f"{key} is {value!r:.40}")
