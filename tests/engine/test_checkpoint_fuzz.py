"""Mutated checkpoints are refused in one line, or loaded as what the file says; no process crashes, hangs or swells."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import checkpoint_fuzz
from checkpoint_fuzz import RUNS, make_run, run_cases
from faults import CONTEXT, PRELOAD

pytestmark = pytest.mark.e2e  # whole runs


def tried(run: str, directory: Path, seed: int, num_cases: int) -> list[dict[str, Any]]:
    """Return what became of each mutation of a checkpoint of `run`."""
    checkpoint = make_run(directory / "saved", RUNS[run])
    work = directory / "work"
    work.mkdir()
    CONTEXT.set_forkserver_preload([*PRELOAD, checkpoint_fuzz.__name__])
    process = CONTEXT.Process(target=run_cases, args=(checkpoint, work, seed, num_cases))
    process.start()
    process.join(60 + num_cases * 5)
    lines = [json.loads(line) for line in (work / "report").read_text().splitlines()]
    assert process.exitcode == 0, (process.exitcode, lines[-2:])
    return [line for line in lines if "result" in line]


def check(results: list[dict[str, Any]]) -> dict[str, int]:
    """Assert that none failed; return how many were loaded, refused and not to be saved."""
    failed = [result for result in results if result["result"].startswith("FAILED")]
    assert not failed, "\n".join(f"{result['what']}\n{result['result']}" for result in failed[:3])
    growth = [result["growth"] for result in results if "growth" in result]
    assert max(growth) <= 1.5 * growth[0] + 16 * 1024, growth
    kinds = [result["result"].partition(":")[0] for result in results[1:]]
    return {"loaded": kinds.count("loaded"), "unsaved": kinds.count("not saved"), "all": len(kinds)}


@pytest.mark.parametrize("run", RUNS)
def test_a_mutated_checkpoint_is_refused_or_loaded_as_it_is(run: str, tmp_path: Path) -> None:
    counts = check(tried(run, tmp_path, 0, 17))
    assert counts["all"] == 17


@pytest.mark.slow
@pytest.mark.parametrize("run", RUNS)
def test_thousands_of_mutated_checkpoints(run: str, tmp_path: Path, record_property: Callable[..., None]) -> None:
    counts = check(tried(run, tmp_path, 1, 340))
    record_property("counts", counts)
    print(run, counts)
