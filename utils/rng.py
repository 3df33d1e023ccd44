"""Random numbers: seeding, the state that a checkpoint holds, and seeds that belong to one sample of one epoch."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

_MASK = (1 << 64) - 1


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextmanager
def cpu_rng_kept() -> Iterator[None]:
    """Put the states of Python's, NumPy's and torch's generators back afterwards; the devices' are left alone."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def seed_cpu(seed: int) -> None:
    """Seed Python, NumPy and torch on the CPU; torch.manual_seed would seed the GPU too, and takes 25 times as long."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)


def seed_for(device: torch.device, seed: int) -> None:
    """Seed what a step on `device` draws from."""
    if device.type == "cpu":
        seed_cpu(seed)
    else:
        seed_everything(seed)


def rng_state(device: torch.device) -> dict[str, Any]:
    """Return the state of every generator as plain data, which `torch.load(weights_only=True)` accepts."""
    name, keys, *rest = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (name, np.asarray(keys).tolist(), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "mps": torch.mps.get_rng_state() if device.type == "mps" else None,
    }


def set_rng_state(state: dict[str, Any], device: torch.device) -> None:
    """Restore what `rng_state` returned. Raises ValueError, or what the libraries raise, where that was no such state.

    NumPy takes any position within its keys, and then reads memory that is not theirs; Python any next value.
    """
    name, keys, position, *rest = state["numpy"]
    is_valid = all(type(key) is int for key in (*keys, position)) and 0 <= position <= len(keys)
    if not is_valid or not isinstance(state["python"][2], float | None):
        raise ValueError("no state of a random generator")
    random.setstate(state["python"])
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)
    if state["mps"] is not None and device.type == "mps":
        torch.mps.set_rng_state(state["mps"])


@contextmanager
def rng_kept(device: torch.device) -> Iterator[None]:
    """Put the state of every generator that `rng_state` has back afterwards."""
    state = rng_state(device)
    try:
        yield
    finally:
        set_rng_state(state, device)


def mix_seed(*parts: int) -> int:
    """Hash integers into one 63-bit seed: equal parts give equal seeds, near parts give unrelated ones.

    The mixing function is splitmix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators").
    """
    state = 0
    for part in parts:
        state = (state + part + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state >> 1


def permutation(num_samples: int, generator: torch.Generator) -> Tensor:
    """Return what torch.randperm does, in half the memory where that is enough."""
    kind = torch.int32 if num_samples < 2**31 else torch.int64
    return torch.randperm(num_samples, generator=generator, dtype=kind)


def sample_uniforms(seed: int, epoch: int, indices: Tensor, num_draws: int) -> Tensor:
    """Return uniform numbers that depend on (seed, epoch, sample index) and on nothing else.

    `indices` is (N,) int64; the result is (N, num_draws) float32 in [0, 1), on the device of `indices`, whatever the
    batch a sample came in and whichever worker drew it. Counter-based: splitmix64 of the sample's counter.
    """
    counter = indices.unsqueeze(1) * num_draws + torch.arange(num_draws, device=indices.device)  # (N, num_draws)
    state = counter * _as_int64(0x9E3779B97F4A7C15) + mix_seed(seed, epoch)  # int64 wraps, as the method wants
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        state = (state ^ _shift_right(state, shift)) * _as_int64(factor)
    return _shift_right(state, 40).to(torch.float32) / 2**24  # the top 24 bits: all that float32 holds


def _shift_right(state: Tensor, bits: int) -> Tensor:
    """Logical shift of int64; torch's own `>>` copies the sign bit in."""
    return (state >> bits) & ((1 << (64 - bits)) - 1)


def _as_int64(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
