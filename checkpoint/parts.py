"""Loading what a checkpoint holds into the parts of a run; it may come from a stranger, so it is checked before."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from utils.errors import CheckpointError
from utils.weights import load_weights

MAX_LINES = 20
MALFORMED = (LookupError, TypeError, ValueError, ArithmeticError, RuntimeError, AttributeError)
"""What torch and we stumble over in a state that is none."""


def load_fitting_weights(model: nn.Module, weights: dict[str, Any], where: str) -> str:
    """Load every tensor of `weights` whose name, shape and dtype are the model's; the rest stays as initialised.

    Returns how many, and a line for each other one. Where none fits, changes nothing and raises CheckpointError.
    """
    found = {name: _describe(value) for name, value in weights.items()}
    own = {name: _describe(value) for name, value in model.state_dict().items()}
    fitting = {name: weights[name] for name, what in own.items() if found.get(name) == what}
    rest = [name for name in {**own, **found} if name not in fitting]
    lines = [f"{where}: {len(fitting)} of the model's {len(own)} tensors fit and are loaded"]
    for name in rest[:MAX_LINES]:
        lines.append(f"  {name!s:.80}: {found.get(name, 'not')} in the file, {own.get(name, 'not')} in the model")
    lines += [f"  and {len(rest) - MAX_LINES} more"] if len(rest) > MAX_LINES else []
    if not fitting:
        raise CheckpointError("\n".join(lines))
    model.load_state_dict(fitting, strict=False)
    return "\n".join(lines)


def _describe(value: Any) -> str:
    """Return dtype and shape of a tensor, as in "float32 [10, 50]"; of a sparse one the layout too, which is no fit."""
    if not isinstance(value, torch.Tensor):
        return f"no tensor but {type(value).__name__}"
    return f"{value.layout} {value.dtype} {list(value.shape)}".replace("torch.strided ", "").replace("torch.", "")


def load_part(part: Any, state: Any, where: str) -> None:
    """Load `state` into a part of a run: a module, an optimizer, or whatever has `load_state_dict`.

    Raises CheckpointError, which begins with `where`, unless the state is one of such a part: of the same keys and,
    for modules and optimizers, of fitting shapes.
    """
    if not isinstance(state, dict) or (state.keys() != part.state_dict().keys() and not isinstance(part, nn.Module)):
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


def eval_weights(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return the weights to evaluate, the average's where there is one; raise CheckpointError where there are none."""
    ema = checkpoint.get("ema")
    weights = ema.get("model") if isinstance(ema, dict) and ema else checkpoint.get("model")
    if not isinstance(weights, dict):
        raise CheckpointError("a checkpoint without weights")
    return weights
