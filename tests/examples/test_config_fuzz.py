"""Mangled copies of the project's configs, JSON and YAML: each is right, or its mistakes are told; and soon."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest
import torchmetrics  # noqa: F401  # takes longer to import than a config may to be read

from helpers import ROOT, limited
from mangled import mangled
from test_configs import shipped
from train import parse_args
from utils import ConfigError

CONFIGS = [shipped(path) for path in [Path("config.json"), *sorted(ROOT.glob("configs/*.json"))]]
pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="Windows has no timers of a process")


def is_right(path: Path, seed: int) -> bool:
    """Whether the mangled config of `seed`, written into `path`, is right; assert that what is wrong is well told."""
    generator = random.Random(seed)
    path.write_bytes(mangled(generator.choice(CONFIGS), path.suffix, generator))
    try:
        with limited():
            parse_args(["-c", str(path)])
    except ConfigError as error:
        lines = str(error).split("\n")
        assert 1 <= len(lines) <= 50
        assert [line for line in lines if not line.isprintable() or not line.startswith(f"{path}:")] == []
        assert max(map(len, lines)) < 6000
        return False
    return True


def fuzz(seeds: range, folder: Path) -> None:
    """Try a mangled config for each seed; some must be right and most wrong, or they would show nothing."""
    num_right = sum(is_right(folder / f"c{['.json', '.yaml'][seed % 2]}", seed) for seed in seeds)
    assert 0 < num_right < len(seeds) / 2
    assert len(list(folder.iterdir())) == 2, "a config was read, and something else written"


def test_sixty_mangled_configs_are_right_or_told_to_be_wrong(tmp_path: Path) -> None:
    fuzz(range(60), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1000, 2000, 100))
def test_a_thousand_mangled_configs_are_right_or_told_to_be_wrong(first: int, tmp_path: Path) -> None:
    fuzz(range(first, first + 100), tmp_path)
