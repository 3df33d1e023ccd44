"""What must be equal for a resumed run to be, to the bit, the run that was never stopped."""

from __future__ import annotations

from typing import Any

import torch

# Keys of the config that change nothing of what is computed up to a given step.
HARMLESS = {"name", "device", "n_gpu", "data_loader.args.num_workers", "data_loader.args.data_dir"}
HARMLESS |= {"data_loader.args.cache_dir"}
HARMLESS |= {f"trainer.{key}" for key in ("epochs", "early_stop", "save_dir", "verbosity", "tensorboard")}
HARMLESS |= {f"trainer.{key}" for key in ("save_period", "save_every_steps", "save_every_minutes", "keep_checkpoints")}
HARMLESS |= {"trainer.log_every_steps", "trainer.profile", "trainer.detect_anomaly"}


def describe_environment(device: torch.device) -> dict[str, Any]:
    """Return what of the surroundings changes the bits of a result."""
    return {
        "torch": str(torch.__version__),
        "device": device.type,
        "threads": torch.get_num_threads() if device.type == "cpu" else None,
        "world_size": 1,
    }


def differences(saved: dict[str, Any], now: dict[str, Any], harmless: bool = False) -> list[str]:
    """Return "key: was SAVED, is NOW" for every key of two nested dicts that differs and is harmless, or is not."""
    before, after = flatten(saved), flatten(now)
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    keys = [key for key in keys if (key in HARMLESS) == harmless]
    return [f"{key}: was {before.get(key)!r:.60}, is {after.get(key)!r:.60}" for key in keys]


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested dicts by dotted path; an empty dict is no leaf."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            leaves |= flatten(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves
