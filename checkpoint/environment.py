"""What must be equal for a resumed run to be, to the bit, the run that was never stopped."""

from __future__ import annotations

from typing import Any

import torch

from utils.device import processor_name
from utils.errors import printable
from utils.nested import flatten


def describe_environment(device: torch.device, num_processes: int | None) -> dict[str, Any]:
    """Return what of the surroundings changes the bits of a result; `num_processes` is None where that does not."""
    return {
        "torch": str(torch.__version__),
        "device": device.type,
        "processor": processor_name(device),
        "threads": torch.get_num_threads() if device.type == "cpu" else None,
        "world_size": num_processes,
    }


def differences(saved: dict[str, Any], now: dict[str, Any]) -> dict[str, str]:
    """Return "key: was SAVED, is NOW" for every key, by its dotted path, in which two nested dicts differ."""
    before, after = flatten(saved), flatten(now)
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    return {key: f"{printable(key)}: was {before.get(key)!r:.60}, is {after.get(key)!r:.60}" for key in keys}
