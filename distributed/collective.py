"""Exchanging plain values between processes, over the CPU. With one process each of these returns what it is given."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from distributed.launch import world_size

T = TypeVar("T")
AS_ARRAYS = (torch.float32, torch.float64, torch.int64, torch.bool)


def gather(value: T) -> list[T]:
    """Return the `value` of every process, by rank; values are pickled."""
    if world_size() == 1:
        return [value]
    pickled: list[Any] = [None] * world_size()
    buffer = io.BytesIO()
    _Pickler(buffer).dump(value)
    dist.all_gather_object(pickled, buffer.getvalue())
    return [pickle.loads(part) for part in pickled]


class _Pickler(pickle.Pickler):
    """Writes tensors as arrays: torch writes a file for each, which takes 14 times as long for scalars."""

    def reducer_override(self, value: Any) -> Any:
        """Return how `value` is made again."""
        if isinstance(value, Tensor) and value.device.type == "cpu" and value.dtype in AS_ARRAYS:
            return torch.from_numpy, (value.detach().numpy(),)
        return NotImplemented


def broadcast(value: T) -> T:
    """Return the `value` of the first process; values are pickled."""
    values = [value]
    if world_size() > 1:
        dist.broadcast_object_list(values, src=0)
    return values[0]


def gather_numbers(numbers: Sequence[float]) -> list[list[float]]:
    """Return the `numbers` of every process, by rank; as many everywhere. Faster than `gather`."""
    return start_gathering(numbers)()


def start_gathering(numbers: Sequence[float]) -> Callable[[], list[list[float]]]:
    """Begin to send `numbers`; return a function that waits for those of every process, and returns them."""
    own = torch.tensor(numbers, dtype=torch.float64)
    if world_size() == 1:
        return lambda: [own.tolist()]
    rows = torch.empty(world_size(), len(own), dtype=own.dtype)
    sent = dist.all_gather_into_tensor(rows.view(-1), own, async_op=True)
    assert sent is not None  # this process is one of the group

    def received() -> list[list[float]]:
        sent.wait()
        return rows.tolist()

    return received


def swap_segments(received: Tensor, sent: Tensor, num_rows: Sequence[int]) -> None:
    """Send `sent[i]` to process i, and write what all have sent here into `received`, `num_rows` rows from each.

    `sent` is (processes, own rows, n), `received` (sum of num_rows, n), both contiguous and on the device.
    """
    if world_size() == 1:
        received.copy_(sent[0])
        return
    sizes = [rows * received.shape[1] for rows in num_rows]
    dist.all_to_all_single(received.view(-1), sent.view(-1), sizes, [sent[0].numel()] * world_size())


def gather_segments(segment: Tensor) -> Tensor:
    """Return the `segment`, (n,), of every process, one after the other."""
    if world_size() == 1:
        return segment
    whole = segment.new_empty(world_size() * len(segment))
    dist.all_gather_into_tensor(whole, segment.contiguous())
    return whole
