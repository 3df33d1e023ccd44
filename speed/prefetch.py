"""Batches on the device: on a GPU the next one is copied while this one is computed with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch

from utils.device import to_device
from utils.nested import tensors_of


def prefetch(
    batches: Iterable[Any], device: torch.device, images: torch.memory_format = torch.contiguous_format
) -> Iterator[Any]:
    """Yield the batches on the device; on a GPU, copy the next one on a side stream while this one is computed with."""
    if device.type != "cuda":
        yield from (to_device(batch, device, images) for batch in batches)
        return
    side_stream = torch.cuda.Stream(device)
    ready: list[tuple[Any, torch.cuda.Event]] = []
    for batch in batches:
        # What is on the device already was computed on the current stream, for which the other does not wait.
        is_on_host = all(tensor.device.type == "cpu" for tensor in tensors_of(batch))
        stream = side_stream if is_on_host else torch.cuda.current_stream()
        with torch.cuda.stream(stream):
            ready.append((to_device(batch, device, images), stream.record_event()))
        if len(ready) > 1:
            yield _received(*ready.pop(0))
    for batch, copied in ready:
        yield _received(batch, copied)


def _received(batch: Any, copied: torch.cuda.Event) -> Any:
    """Let the current stream wait for the copy, and the allocator know that it uses the batch."""
    current = torch.cuda.current_stream()
    current.wait_event(copied)
    for tensor in tensors_of(batch):
        tensor.record_stream(current)
    return batch
