"""The benchmarks that call the engine's inside go on working with it; what they measure is for `make bench`."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers import ROOT


def test_the_price_of_a_checkpoint_can_be_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from checkpoint_stall import measure

    waits, writes = measure(1, tmp_path, repeats=1)
    assert waits > 0
    assert writes > 0
