"""Seeds, generator states and per-sample uniforms: equal inputs give equal numbers, wherever they are drawn."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from utils import mix_seed, rng_state, sample_uniforms, seed_everything, set_rng_state

CPU = torch.device("cpu")
MASK = (1 << 64) - 1
SEEDS = [0, 1, 123, 2**32 - 1, 2**32 + 5, 2**63 - 1]


@pytest.fixture(autouse=True)
def _global_generators() -> Iterator[None]:
    """Leave the generators of the process as they were."""
    state = rng_state(CPU)
    yield
    set_rng_state(state, CPU)


def draw() -> tuple[list[float], list[float], list[float], list[float]]:
    """Draw from every global generator; Gaussians, so that the spare one that generators keep counts too."""
    return (
        [random.random() for _ in range(3)] + [random.gauss(0, 1)],
        np.random.rand(3).tolist(),
        np.random.randn(3).tolist(),
        torch.randn(5).tolist(),
    )


def splitmix64(state: int) -> int:
    """Return the output of splitmix64 for `state`, on Python's integers (Steele, Lea, Flood 2014)."""
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
    return state ^ (state >> 31)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_same_seed_gives_the_same_numbers_from_python_numpy_and_torch(seed: int) -> None:
    seed_everything(seed)
    first = draw()
    assert all(one != other for one, other in zip(first, draw()))
    seed_everything(seed)
    assert draw() == first


@pytest.mark.parametrize("warm_up", [0, 1])
def test_restored_state_goes_on_with_the_same_numbers_after_a_weights_only_round_trip(
    tmp_path: Path, warm_up: int
) -> None:
    seed_everything(3)
    for _ in range(warm_up):
        draw()
    torch.save(rng_state(CPU), tmp_path / "rng.pt")
    expected = draw()
    seed_everything(99)
    set_rng_state(torch.load(tmp_path / "rng.pt", weights_only=True), CPU)
    assert draw() == expected


def test_reading_the_state_draws_nothing() -> None:
    seed_everything(3)
    expected = draw()
    seed_everything(3)
    rng_state(CPU)
    assert draw() == expected


def test_mix_seed_of_one_number_is_splitmix64_of_it() -> None:
    # The first outputs for the seed 1234567, as published with the reference implementation.
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    golden = 0x9E3779B97F4A7C15
    assert [mix_seed((1234567 + i * golden) & MASK) for i in range(3)] == [output >> 1 for output in published]


def test_mixed_seeds_are_63_bit_and_differ_for_near_parts_and_for_their_order() -> None:
    triples = [(seed, epoch, index) for seed in range(10) for epoch in range(10) for index in range(50)]
    seeds = {mix_seed(*triple) for triple in triples}
    assert len(seeds) == len(triples)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_mixed_seeds_of_neighbours_differ_in_about_half_of_their_bits() -> None:
    flips = [bin(mix_seed(0, epoch) ^ mix_seed(0, epoch + 1)).count("1") for epoch in range(2000)]
    assert abs(np.mean(flips) - 31.5) < 0.5


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("num_draws", [1, 8])
def test_sample_uniforms_are_splitmix64_of_the_samples_counter(seed: int, num_draws: int) -> None:
    indices = [0, 1, 59_999, 2**40, 7]
    expected = [
        [
            (splitmix64(((index * num_draws + draw) * 0x9E3779B97F4A7C15 + mix_seed(seed, 2)) & MASK) >> 40) / 2**24
            for draw in range(num_draws)
        ]
        for index in indices
    ]
    uniforms = sample_uniforms(seed, 2, torch.tensor(indices), num_draws)
    assert (uniforms.dtype, uniforms.shape) == (torch.float32, (len(indices), num_draws))
    assert uniforms.tolist() == expected


def test_a_samples_uniforms_do_not_depend_on_the_batch_it_came_in() -> None:
    whole = sample_uniforms(0, 1, torch.arange(100), 8)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    pieces = [sample_uniforms(0, 1, piece, 8) for piece in order.split(7)]
    assert torch.equal(torch.cat(pieces), whole[order])


def test_uniforms_of_other_seeds_and_epochs_are_others() -> None:
    draws = {
        tuple(sample_uniforms(seed, epoch, torch.tensor([4]), 8)[0].tolist()) for seed in range(5) for epoch in range(5)
    }
    assert len(draws) == 25


def test_uniforms_fill_the_unit_interval_evenly_and_uncorrelated() -> None:
    uniforms = sample_uniforms(0, 1, torch.arange(20_000), 8).double()
    assert uniforms.min() >= 0
    assert uniforms.max() < 1
    counts = torch.histc(uniforms, bins=16, min=0, max=1) / uniforms.numel()
    assert (counts - 1 / 16).abs().max() < 0.002  # over 3 standard deviations of a bin of 160,000 draws
    assert (torch.corrcoef(uniforms.T) - torch.eye(8)).abs().max() < 0.03


def test_drawing_uniforms_leaves_the_global_generators_as_they_were() -> None:
    seed_everything(3)
    expected = draw()
    seed_everything(3)
    sample_uniforms(0, 1, torch.arange(10), 8)
    mix_seed(1, 2, 3)
    assert draw() == expected
