"""Loads a checkpoint into the parts of a run, and checks it first: it may come from a stranger."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from checkpoint.fit import check_like, check_schedule, fitted_state
from checkpoint.shards import Shards
from utils.errors import CheckpointError, printable
from utils.weights import load_weights

MAX_LINES = 20
MALFORMED = (LookupError, TypeError, ValueError, ArithmeticError, RuntimeError, AttributeError)
"""What a malformed state makes torch and this project raise."""
CHECKED = ("torch", "base", "utils")  # packages whose parts always have the same kind of state


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
        lines.append(f"  {printable(name)}: {found.get(name, 'not')} in the file, {own.get(name, 'not')} in the model")
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

    Raises CheckpointError, which begins with `where`, unless the state is one that such a part could have. Of what a
    fork wrote, only the keys are known.
    """
    own = part.state_dict()
    if not isinstance(state, dict) or (state.keys() != own.keys() and not isinstance(part, nn.Module)):
        raise CheckpointError(f"{where}: missing or of other keys than this run's")
    if isinstance(part, nn.Module):
        load_weights(part, state, where)
        return
    try:
        library = type(part).__module__.partition(".")[0]
        if isinstance(part, Optimizer):
            state = fitted_state(part, state)
        elif library in CHECKED:
            check_like(state, own, "state", may_have_more=library != "torch")
        part.load_state_dict(state)
        if isinstance(part, LRScheduler) and library in CHECKED:
            check_schedule(part)
    except MALFORMED as error:
        raise CheckpointError(f"{where}: does not fit: {type(error).__name__}: {printable(error)}") from None


def saved_facts(checkpoint: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Return what the training data said; raise CheckpointError where it is not of the kinds of `own`, other data's."""
    facts = checkpoint.get("facts")
    if not isinstance(facts, dict) or any(
        type(facts.get(name, value)) is not type(value) for name, value in own.items()
    ):
        raise CheckpointError("a checkpoint whose facts are not of the kind that the data gives")
    return facts


def eval_weights(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return the weights to evaluate, the average's where there is one; raise CheckpointError where there are none."""
    shards, ema = Shards(checkpoint), checkpoint.get("ema")
    shards.check(is_shared=False)
    weights = shards.whole("ema").get("model") if isinstance(ema, dict) and ema else shards.whole("model")
    if not isinstance(weights, dict):
        raise CheckpointError("a checkpoint without weights")
    return weights
