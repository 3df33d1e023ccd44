"""What a process holds while it trains: the bytes of weights, gradients, optimizer state and activations."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from speed.levers import local_part
from utils.nested import tensors_of


def bytes_held(state: Any) -> int:
    """Return the bytes of the tensors in `state`, nested; of a sharded one, those of this process's part."""
    return sum(local_part(tensor).nbytes for tensor in tensors_of(state))


def state_held(trainer: Any) -> dict[str, int]:
    """Return the bytes of the weights, gradients, optimizers and other parts that `trainer` holds after a step."""
    parts = {name: part.state_dict() for name, part in trainer._stateful().items()}
    modules = [value for value in vars(trainer).values() if isinstance(value, nn.Module)]
    parameters = {parameter for module in modules for parameter in module.parameters()}
    held = {"weights": bytes_held(parts.pop("model", {}))}
    held["gradients"] = bytes_held([parameter.grad for parameter in parameters])
    names = [name for name, part in trainer._stateful().items() if isinstance(part, torch.optim.Optimizer)]
    held["optimizer"] = bytes_held([parts.pop(name, {}) for name in names])
    return held | {"other state": bytes_held(parts)}


class SavedForBackward:
    """Counts what autograd saves for backward passes, weights aside: `peak` is the most bytes at a time."""

    def __init__(self) -> None:
        self.peak = 0
        self._held = 0
        self._num_users: Counter[int] = Counter()  # by address: several operations may save the same memory

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count while this is entered."""
        with torch.autograd.graph.saved_tensors_hooks(self._pack, lambda saved: saved()):
            yield

    def _pack(self, tensor: Tensor) -> Any:
        """Return a function that returns `tensor`; its memory counts until that function is gone."""

        def saved() -> Tensor:
            return tensor

        base = tensor if tensor._base is None else tensor._base
        if not isinstance(base, nn.Parameter):
            storage = local_part(tensor).untyped_storage()
            address, size = storage.data_ptr(), storage.nbytes()
            self._num_users[address] += 1
            self._held += size * (self._num_users[address] == 1)
            self.peak = max(self.peak, self._held)
            weakref.finalize(saved, self._free, address, size)
        return saved

    def _free(self, address: int, size: int) -> None:
        self._num_users[address] -= 1
        self._held -= size * (self._num_users[address] == 0)
