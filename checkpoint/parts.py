"""Loading what a checkpoint holds into the parts of a run; it may come from a stranger, so it is checked before."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from utils.errors import CheckpointError
from utils.weights import load_weights

MAX_ROWS = 20
MALFORMED = (LookupError, TypeError, ValueError, ArithmeticError, RuntimeError, AttributeError)
"""What torch and we stumble over in a state that is none."""


def load_fitting_weights(model: nn.Module, weights: dict[str, Any], where: str) -> str:
    """Load every tensor of `weights` whose name, shape and dtype are the model's; the rest stays as initialised.

    Returns a table: how many tensors were loaded, and a row for each that was not. Raises CheckpointError, which
    begins with `where`, and changes nothing, where none fits.
    """
    state = model.state_dict()
    own = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}  # no module's extra state
    shared = [name for name in own if name in weights]
    fitting = {name: weights[name] for name in shared if _describe(weights[name]) == _describe(own[name])}
    rows = [(name, "not in the file", _describe(own[name])) for name in own if name not in weights]
    rows += [(str(name)[:80], "not in the model", _describe(weights[name])) for name in weights if name not in state]
    for name in (name for name in shared if name not in fitting):
        rows.append((name, "differs", f"{_describe(weights[name])} in the file, {_describe(own[name])} in the model"))
    head = f"{len(fitting)} of the model's {len(own)} tensors are in the file and loaded"
    head += "; the rest stay as initialised" if len(fitting) < len(own) else ""
    if not fitting:
        head = f"none of the model's {len(own)} tensors is in the file with the same shape and dtype"
    text = "\n".join([f"{where}: {head}", *_table(rows)])
    if not fitting:
        raise CheckpointError(text)
    model.load_state_dict(fitting, strict=False)
    return text


def _describe(value: Any) -> str:
    """Return dtype and shape of a tensor, as in "float32 [10, 50]"; of a sparse one the layout too, which is no fit."""
    if not isinstance(value, torch.Tensor):
        return f"no tensor but {type(value).__name__}"
    layout = "" if value.layout == torch.strided else f"{value.layout} "
    return f"{layout}{value.dtype} {list(value.shape)}".replace("torch.", "")


def _table(rows: list[tuple[str, str, str]]) -> list[str]:
    """Return the first rows as aligned lines, and how many more there are."""
    shown = rows[:MAX_ROWS]
    widths = [max((len(row[column]) for row in shown), default=0) for column in (0, 1)]
    lines = [f"  {name:{widths[0]}}  {what:{widths[1]}}  {shape}" for name, what, shape in shown]
    return [*lines, f"  and {len(rows) - MAX_ROWS} more"] if len(rows) > MAX_ROWS else lines


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


def eval_weights(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return the weights of a checkpoint to evaluate: the average where there is one, else the model's.

    Raises CheckpointError where there are none.
    """
    ema = checkpoint.get("ema")
    weights = ema.get("model") if isinstance(ema, dict) and ema else checkpoint.get("model")
    if not isinstance(weights, dict):
        raise CheckpointError("a checkpoint without weights")
    return weights
