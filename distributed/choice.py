"""Which strategy a run has: it depends on the options and on how many processes there are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from distributed.data_parallel import DataParallel
from distributed.fsdp import Fsdp
from distributed.launch import world_size
from distributed.strategy import Alone
from distributed.virtual_ranks import VirtualRanks


def make_strategy(options: Any, device: torch.device, seed: int) -> Alone:
    """Return the strategy for the processes that there are; `options` are those of the `trainer` section."""
    several = Fsdp if options.strategy.type == "fsdp" else DataParallel
    strategy: Callable[..., Alone] = several if world_size() > 1 else Alone
    if options.virtual_ranks is not None:
        strategy = VirtualRanks
    return strategy(options, device, seed)
