"""Reads weights that others wrote: safetensors, a plain state dict, or a checkpoint of this project."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from checkpoint.file import is_whole, load_checkpoint
from checkpoint.parts import eval_weights
from utils.errors import CheckpointError, reading


def read_weights(path: Path) -> dict[str, Any]:
    """Return the weights in the file at `path` by name, on the CPU; nothing in it can run code.

    Of a checkpoint of this project they are those to evaluate; a state dict may lie under "state_dict" or "model".
    Raises CheckpointError.
    """
    with reading(path, CheckpointError), open(path, "rb"):
        pass
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if is_whole(path):
        return eval_weights(load_checkpoint(path))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an odd pickle
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a crafted or another file makes torch raise
        raise CheckpointError(f"{path}: refused: not weights alone ({type(error).__name__})") from None
    for key in ("state_dict", "model"):
        state = state[key] if isinstance(state, dict) and isinstance(state.get(key), dict) else state
    weights = {key: value for key, value in state.items() if isinstance(value, torch.Tensor)} if _is_dict(state) else {}
    if not weights:
        raise CheckpointError(f"{path}: no weights in it; a state dict is {{name: tensor}}")
    return weights


def as_dtypes_of(model: nn.Module, weights: dict[str, Any]) -> dict[str, Any]:
    """Return `weights` with those that are floating in the dtypes of the model's: files often hold half precision."""
    own = model.state_dict()
    return {
        name: value.to(own[name].dtype) if name in own and _are_floats(value, own[name]) else value
        for name, value in weights.items()
    }


def _are_floats(*values: Any) -> bool:
    return all(isinstance(value, torch.Tensor) and value.is_floating_point() for value in values)


def _is_dict(state: Any) -> bool:
    return isinstance(state, dict) and all(isinstance(key, str) for key in state)


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError:
        raise CheckpointError(f"{path}: reading it needs safetensors; pip install safetensors") from None
    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path}: refused: {error}") from None
