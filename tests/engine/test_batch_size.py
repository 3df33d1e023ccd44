"""An "auto" batch size is a number before training begins, the largest that fits, and stays with the run."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

import toy
from faults import CONTEXT, exit_code, write_config
from helpers import assert_equal, newest
from preflight.batch_size import PROBE, largest_batch_size
from toy_runs import parsed, run, small_config, train
from utils import ConfigError

pytestmark = pytest.mark.e2e  # whole runs


def search_with_little_memory(path: str, megabytes: int, sizes: Any) -> None:
    """Put into `sizes` the batch size that is found where the address space ends after so many megabytes more."""
    import resource

    gc.freeze()  # what is imported, so that collecting garbage after each size takes no time
    torch.set_num_threads(1)
    trainer = toy.build_trainer(toy.parse_args(["-c", path, "--bs", str(PROBE)]))
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + megabytes * 2**20, -1))
    sizes.put(largest_batch_size(trainer))


@pytest.mark.parametrize("loop", ["counted", "plain"])
def test_auto_is_the_largest_power_of_two_with_the_data_and_stays_with_the_run(loop: str, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"trainer__loop": loop, "data_loader__args__num_samples": 54}  # 48 to train on
    if loop == "counted":
        args = {"max_lr": 0.01, "total_steps": 6}
        changes["lr_scheduler"] = {"type": "OneCycleLR", "interval": "step", "args": args}
    run_dir = train(small_config(tmp_path / "auto", data_loader__args__batch_size="auto", **changes))
    assert json.loads((run_dir / "config.json").read_text())["data_loader"]["args"]["batch_size"] == 32
    assert newest(run_dir)["position"]["global_step"] == 4
    resumed = run("-r", str(run_dir), "--set", "trainer.epochs=3")
    given = small_config(tmp_path / "given", data_loader__args__batch_size=32, **changes)
    assert_equal(newest(train(given, "--set", "trainer.epochs=3"))["model"], newest(resumed)["model"])
    assert toy.evaluate(["-r", str(run_dir)]).keys() == {"loss", "accuracy"}


def test_the_search_leaves_no_trace_in_the_run(tmp_path: Path) -> None:
    auto = train(small_config(tmp_path / "auto", data_loader__args__batch_size="auto"))
    given = train(small_config(tmp_path / "given", data_loader__args__batch_size=16))
    assert_equal(newest(given)["model"], newest(auto)["model"])
    assert [path.name for path in auto.parent.iterdir()] == [auto.name]


@pytest.fixture(autouse=True)
def _little_garbage() -> Iterator[None]:
    """Freeze what is imported: the search collects garbage after each size, which would take a third of a second."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space, which Linux alone enforces")
def test_memory_that_runs_out_ends_the_search(tmp_path: Path) -> None:
    path = write_config(small_config(tmp_path / "saved", arch__args__width=8192, data_loader__args__num_samples=4096))
    sizes = []
    for megabytes in (40, 160):
        queue: Any = CONTEXT.SimpleQueue()
        process = CONTEXT.Process(target=search_with_little_memory, args=(path, megabytes, queue))
        process.start()
        assert exit_code(process) == 0
        sizes.append(queue.get())
    assert 1 < sizes[0] < sizes[1] <= 2048
    assert all(size & (size - 1) == 0 for size in sizes)


def test_an_error_that_is_not_of_memory_is_not_hidden(tmp_path: Path) -> None:
    config = parsed(small_config(tmp_path / "saved"), data_loader__args__batch_size=PROBE)
    trainer = toy.build_trainer(config, toy.PlainTrainer)
    trainer.model.hidden = torch.nn.Linear(5, 8)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        largest_batch_size(trainer)


def test_a_stream_has_no_batch_size_to_find(tmp_path: Path) -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter([])

    trainer = toy.build_trainer(parsed(small_config(tmp_path / "saved")), toy.PlainTrainer)
    trainer.data_loader = DataLoader(Stream())  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match='"auto" needs a map-style dataset; give a number'):
        largest_batch_size(trainer)


@pytest.mark.parametrize("size", ["automatic", 0, 2.5])
def test_no_other_word_is_a_batch_size(size: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="batch_size: "):
        parsed(small_config(tmp_path / "saved", data_loader__args__batch_size=size))
