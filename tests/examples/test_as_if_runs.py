"""What an imagined process holds and exchanges is, to the byte, what a real one does."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from distributed.traffic import fake_processes
from example_runs import run_train
from faults import small_config, write_config
from helpers import write_given
from preflight.as_if import observe
from processes import finish_all
from train import build_trainer, parse_args
from utils import ConfigError

CHANGES: dict[str, dict[str, Any]] = {
    "ddp": {},
    "fsdp": {"trainer__strategy": {"type": "fsdp", "blocks": ["fc?"]}},
    "virtual_ranks": {"trainer__virtual_ranks": 3},
}


@pytest.fixture(autouse=True)
def _imagined(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip where torch is too old to imagine processes; measure as shortly as can be."""
    monkeypatch.setattr("preflight.as_if.MIN_S", 0.0)
    try:
        with fake_processes(1):
            pass
    except ConfigError as error:
        pytest.skip(str(error))


def _observe_instead_of_main(out: Path) -> None:
    """Let train.py's main write what the first process holds and exchanges in a step."""
    import train
    from distributed import is_main

    def main(config: Any) -> None:
        step, memory = observe(build_trainer(config))
        if is_main():
            out.write_text(json.dumps([step.collectives, memory]))

    train.main = main


@pytest.mark.parametrize("strategy", ["ddp", "fsdp", pytest.param("virtual_ranks", marks=pytest.mark.slow)])
def test_it_holds_and_exchanges_what_a_real_process_does(strategy: str, tmp_path: Path) -> None:
    path = write_config(small_config(tmp_path / "run", **CHANGES[strategy]))
    with fake_processes(2):
        step, memory = observe(build_trainer(parse_args(["-c", path])))
    out = tmp_path / "out.json"
    assert finish_all(2, "-c", path, setup=partial(_observe_instead_of_main, out)) == [0, 0]
    exchanges, real = json.loads(out.read_text())
    assert [tuple(exchange) for exchange in exchanges] == step.collectives
    assert real == memory
    assert all(memory[name] for name in ("weights", "gradients", "optimizer", "activations"))


def check(config: dict[str, Any], capsys: pytest.CaptureFixture[str], *args: str) -> list[str]:
    """Return the lines that --check prints; nothing else may be left."""
    run_train("-c", write_given(config), "--check", *args)
    folder = Path(config["trainer"]["save_dir"])
    assert [path.name for path in folder.iterdir()] == ["given.json"]
    return capsys.readouterr().out.splitlines()


def test_it_prints_what_each_process_holds_and_sends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = small_config(tmp_path / "run", trainer__log_every_steps=1000)
    lines = check(config, capsys, "--as-if", "3", "--link-speed", "8Gbit/s")
    alone, link, _, memory, exchanged, titles, row = lines
    assert "a step of one process, with the whole batch, takes" in alone
    assert "1 GB/s, 20 us a message" in link
    assert memory.startswith("memory of each of 3 processes: weights 85.31 KiB + gradients 85.31 KiB + optimizer 170.7")
    assert exchanged == "exchanged in a step: 1 all-gather of 120 B, 1 all-reduce of 85.31 KiB"
    assert (titles.split()[0], row.split()[0]) == ("processes", "3")


@pytest.mark.slow
def test_many_processes_cost_no_more_to_imagine_and_too_many_are_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    *_, warning, _, small, large = check(small_config(tmp_path / "run", metrics=[]), capsys, "--as-if", "2,4096")
    assert warning == "warning: a batch has 64 samples, so 4032 of 4096 processes have none"
    assert [row.split()[0] for row in (small, large)] == ["2", "4,096"]


def test_what_a_run_would_be_refused_for_is_refused(tmp_path: Path) -> None:
    config = small_config(tmp_path / "run", trainer__virtual_ranks=4)
    with pytest.raises(ConfigError, match=r"trainer\.virtual_ranks: 4, but there are 8 processes"):
        run_train("-c", write_given(config), "--check", "--as-if", "8")
