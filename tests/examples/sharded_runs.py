"""Runs whose weights are sharded over processes, for the tests of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from base.resume import restore
from checkpoint.file import load_checkpoint
from distributed.fsdp import Fsdp
from faults import exit_code, small_config, the_run, with_changes, write_config
from processes import start_all
from speed import is_sharded

FSDP = {"type": "fsdp", "blocks": ["fc?"]}
PARTS = ("model", "optimizer", "ema", "lr_scheduler")
TOLERANCE = 1e-6  # of the norm of a tensor
OPTIMIZERS = {"SGD": {"lr": 0.1, "momentum": 0.9}, "AdamW": {"lr": 0.002}}


def config_of(save_dir: Path, **changes: Any) -> dict[str, Any]:
    """Return the config of an epoch of 7 steps without random numbers that are a process's own."""
    fixed = {"arch__args__dropout": 0.0, "data_loader__args__max_shift": 0, "trainer__epochs": 1}
    return small_config(save_dir, **{**fixed, "trainer__max_grad_norm": 0.1, **changes})


def sharded(config: dict[str, Any]) -> dict[str, Any]:
    """Turn fsdp on in `config`."""
    return with_changes(config, trainer__strategy=FSDP)


def reloaded(main: Callable[[Any], None], out: Path, config: Any) -> None:
    """Write what a run of `config` would save right after it has resumed from what -r names."""
    from distributed import is_main
    from train import build_trainer

    trainer = build_trainer(config)
    parts, strategy, path = trainer._stateful(), trainer.strategy, config.init_from
    restore(load_checkpoint(path), parts, strategy, trainer.device, path)
    state = {key: strategy.full(part.state_dict()) for key, part in parts.items() if key in PARTS}
    assert isinstance(strategy, Fsdp) == any(is_sharded(weight) for weight in trainer.model.parameters())
    if is_main():
        torch.save(state, out)


def whole(main: Callable[[Any], None], out: Path, config: Any) -> None:
    """Run `config` as it is."""
    main(config)


def _instead_of_main(do: Callable[..., None], out: Path) -> None:
    """Let the script that follows `do` what its main would."""
    import train

    train.main = partial(do, train.main, out)


def run(config: dict[str, Any], size: int, *args: str, do: Callable[..., None] = whole) -> str:
    """Run `config` in `size` processes to its end; return what they had to say about an error, "" where none."""
    out, path = Path(config["trainer"]["save_dir"]).with_suffix(".out"), write_config(config)
    started = start_all(size, "-c", path, *args, setup=partial(_instead_of_main, do, out), stderr=out)
    codes = [exit_code(process) for process in started]
    assert all(codes) == any(codes), codes  # they end together
    errors = "".join(out.with_suffix(f".{number}").read_text() for number in range(size))
    return errors if any(codes) else ""


def trained(config: dict[str, Any], size: int, *args: str) -> Path:
    """Train `config` in `size` processes; return the run directory."""
    errors = run(config, size, *args)
    assert not errors, errors
    return the_run(config)


def assert_close(one: Any, other: Any, where: str, tolerance: float = TOLERANCE) -> None:
    """Assert that nested states are equal but for the order in which floats were added."""
    if isinstance(one, torch.Tensor):
        assert type(other) is torch.Tensor, where
        assert (one.double() - other.double()).norm() <= tolerance * one.double().norm() + 1e-9, where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_close(one[key], other[key], f"{where}.{key}", tolerance)
    else:
        assert one == other, where
