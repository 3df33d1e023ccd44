"""One process of several is killed, and another number of them goes on: the end is that of one process, to the bit."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from faults import assert_same_run, small_config, the_run, whole_run
from process_faults import kill_one_of_several
from test_distributed import EVERYTHING

STEPS_PER_EPOCH = 12


@pytest.mark.slow
@pytest.mark.parametrize("num_kills", [2, 20, 200])
def test_processes_that_are_killed_go_on_by_other_numbers_to_the_bit(num_kills: int, tmp_path: Path) -> None:
    epochs = 1 + num_kills // 3  # a start gets ahead by fewer than four steps
    changes: dict[str, Any] = {**EVERYTHING, "trainer__epochs": epochs, "trainer__early_stop": None}
    schedule = {"max_lr": 0.01, "total_steps": STEPS_PER_EPOCH * epochs + 1}
    changes["lr_scheduler"] = {"type": "OneCycleLR", "interval": "step", "args": schedule}
    expected = whole_run(small_config(tmp_path / "whole", **changes), script="norm_train")
    config = small_config(tmp_path / "killed", **changes)
    assert kill_one_of_several(config, random.Random(num_kills), num_kills, "norm_train") == num_kills
    assert_same_run(expected, the_run(config))
