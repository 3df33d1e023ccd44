"""Which checkpoints a run keeps: the newest, and with keep_best the best, the same whatever was killed."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from base.monitor import Monitor
from checkpoint import writer
from checkpoint.file import epoch_of, load_checkpoint, serialise
from faults import finish, the_run, write_config
from helpers import epochs_of
from toy_runs import run, small_config, train

CHANGES: dict[str, Any] = {
    "trainer__epochs": 9,
    "trainer__early_stop": None,
    "trainer__keep_checkpoints": 2,
    "trainer__keep_best": 3,
    "trainer__monitor": "max val_loss",  # whose best epochs are not the last ones
    "trainer__tensorboard": False,
}


def epochs_kept(run_dir: Path) -> list[int]:
    return sorted(epoch for path in run_dir.iterdir() if (epoch := epoch_of(path)) is not None)


def expected_epochs(run_dir: Path, num_newest: int, num_best: int) -> list[int]:
    """Return the epochs to keep, by metrics.jsonl alone."""
    by_value = sorted(epochs_of(run_dir), key=lambda record: (-record["val_loss"], record["epoch"]))
    last = len(by_value)
    return sorted({*range(last - num_newest + 1, last + 1), *(record["epoch"] for record in by_value[:num_best])})


@pytest.mark.parametrize("save_period", [1, 4])
def test_the_best_stay_beside_the_newest(save_period: int, tmp_path: Path) -> None:
    run_dir = train(small_config(tmp_path, **CHANGES, trainer__save_period=save_period))
    kept = epochs_kept(run_dir)
    if save_period == 1:
        assert kept == expected_epochs(run_dir, 2, 3)
    else:  # what is not due is saved where it is among the best at that time
        assert {*expected_epochs(run_dir, 1, 3)} <= {*kept}
    for epoch in kept:
        assert load_checkpoint(run_dir / f"checkpoint-epoch{epoch}.pth")["epoch"] == epoch
    assert "of the newest 2 epochs that are saved, of the 3 best" in (run_dir / "info.log").read_text()


def test_few_are_kept_by_default_and_all_on_request(tmp_path: Path) -> None:
    changes = {"trainer__epochs": 5, "trainer__early_stop": None}
    run_dir = train(small_config(tmp_path / "few", **changes))
    assert epochs_kept(run_dir) == [3, 4, 5]
    assert "kept: latest, previous, best, and those of the newest 3 epochs" in (run_dir / "info.log").read_text()
    assert epochs_kept(train(small_config(tmp_path / "all", **changes, trainer__keep_checkpoints=None))) == [
        *range(1, 6)
    ]


def kill_in_save(number: int) -> None:
    """Let this process be killed at the `number`-th change of a name: of its checkpoints, of status.json."""
    names = iter(range(1, 1000))
    link, replace = writer.link, os.replace

    def killed(change: Any) -> Any:
        def changed(*args: Any) -> None:
            change(*args)
            if next(names) == number:
                os.kill(os.getpid(), signal.SIGKILL)

        return changed

    writer.link = killed(link)
    os.replace = killed(replace)


@pytest.mark.parametrize(
    "number", [9, 10, *(pytest.param(n, marks=pytest.mark.slow) for n in [*range(4, 9), *range(11, 28)])]
)
def test_a_killed_save_leaves_the_same_files_in_the_end(number: int, tmp_path: Path) -> None:
    expected = train(small_config(tmp_path / "whole", **CHANGES))
    config = small_config(tmp_path / "killed", **CHANGES)
    assert finish("-c", write_config(config), script="toy", setup=partial(kill_in_save, number)) == -signal.SIGKILL
    run_dir = run("-r", str(the_run(config)))
    assert epochs_kept(run_dir) == epochs_kept(expected)
    for path in expected.glob("*.pth"):
        one, other = load_checkpoint(path), load_checkpoint(run_dir / path.name)
        assert (one["position"], one["monitor"]["best"]) == (other["position"], other["monitor"]["best"])


def test_top_is_in_the_state_and_ties_are_the_earlier_epoch() -> None:
    monitor, other = Monitor("min val_loss", None, 2), Monitor("min val_loss", None, 2)
    for epoch, value in enumerate([3.0, 1.0, float("nan"), 1.0, 3.0, 1.0], start=1):
        monitor.update(epoch, {"val_loss": value})
    assert monitor.top == [(1.0, 2), (1.0, 4)]
    other.load_state_dict(monitor.state_dict())
    assert other.top == monitor.top
    assert monitor.is_kept(4)
    assert not monitor.is_kept(6)


def test_a_run_from_before_keep_best_resumes(tmp_path: Path) -> None:
    config = small_config(tmp_path, **CHANGES | {"trainer__epochs": 2})
    run_dir = train(config)
    state = load_checkpoint(run_dir / "latest.pth")
    del state["monitor"]["top"]
    del state["config"]["trainer"]["keep_best"]
    for path in run_dir.glob("*.pth"):
        path.unlink()
    (run_dir / "latest.pth").write_bytes(serialise(state))
    run("-r", str(run_dir), "--set", "trainer.epochs=3")
    assert epochs_kept(run_dir) == [3]
