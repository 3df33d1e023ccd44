"""What N imagined processes hold and send is what can be computed by hand, and wrong flags are refused in one line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

import toy
from distributed import rank, world_size
from distributed.data_parallel import DataParallel
from distributed.fsdp import shard
from distributed.traffic import Collective, Link, Recorder, fake_processes
from helpers import write_given
from parse_config import TrainerOptions
from preflight.footprint import SavedForBackward, bytes_held
from toy_runs import small_config
from utils import ConfigError, Position

BYTES = 4  # of a float32


def skip_without_group() -> None:
    """Skip the test where torch is too old to imagine processes."""
    try:
        with fake_processes(1):
            pass
    except ConfigError as error:
        pytest.skip(str(error))


@pytest.fixture(params=[4, 4096])
def num_processes(request: pytest.FixtureRequest) -> Iterator[int]:
    """Be the first of so many processes."""
    skip_without_group()
    with fake_processes(request.param):
        assert (rank(), world_size()) == (0, request.param)
        yield request.param


def test_a_ring_and_a_tree_send_what_textbooks_say() -> None:
    assert Collective("all-reduce", 800).sent(4) == 2 * 3 / 4 * 800
    assert Collective("all-gather", 800).sent(4) == Collective("reduce-scatter", 800).sent(4) == 3 / 4 * 800
    assert Collective("broadcast", 800).sent(5) == 3 * 800
    assert [Collective(kind, 1).num_messages(8) for kind in ("all-reduce", "all-gather", "broadcast")] == [14, 7, 3]
    assert all(Collective(kind, 800).sent(1) == 0 for kind in ("all-reduce", "all-to-all", "broadcast"))
    link = Link.parse("8kbit/s", "2ms")
    assert link == (1000.0, 0.002)
    assert link.seconds([Collective("all-reduce", 800), Collective("all-gather", 800)], 4) == pytest.approx(
        1.8 + 9 * 0.002
    )


def test_ddp_sends_and_holds_the_whole_model(num_processes: int) -> None:
    model, recorder = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)), Recorder()
    num_weights = 5 * 8 + 8 + 2 * 8 + 8 * 3 + 3
    strategy = DataParallel(TrainerOptions(epochs=1), torch.device("cpu"), 0)
    strategy.attach([model], list(model.parameters()), Position())
    optimizer = torch.optim.AdamW(model.parameters())
    for _ in range(3):  # the first ones order the buckets
        with recorder:
            model(torch.ones(2, 5)).sum().backward()
            strategy.end_step([torch.ones(())])
        collectives, _ = recorder.pop()
        optimizer.step()
    buffers = [Collective("broadcast", 8 * BYTES)] * 2 + [Collective("broadcast", 8)]
    assert collectives == [Collective("all-reduce", num_weights * BYTES), *buffers]
    assert bytes_held([parameter.grad for parameter in model.parameters()]) == num_weights * BYTES
    num_tensors = 6  # each with its own count of steps
    assert bytes_held(optimizer.state_dict()) == (2 * num_weights + num_tensors) * BYTES
    assert model(torch.ones(2, 5)).isfinite().all()


def test_fsdp_gathers_block_by_block_and_holds_a_part(num_processes: int) -> None:
    model, recorder = nn.Sequential(nn.Linear(4, 4096), nn.ReLU(), nn.Linear(4096, 8)), Recorder()
    options: dict[str, Any] = {"epochs": 1, "strategy": {"type": "fsdp", "blocks": ["0"]}}
    shard(model, TrainerOptions(**options))
    optimizer = torch.optim.AdamW(model.parameters())
    with recorder:
        model(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    first = (4 * 4096 + 4096) * BYTES  # 4096 rows: as many for each process
    rows = num_processes * -(-8 // num_processes)  # of the last layer's 8, padded so that all have equally many
    last = (4096 + 1) * rows * BYTES
    gathers = [Collective("all-gather", size) for size in (last, first, last, first)]  # again for the backward pass
    assert recorder.pop()[0] == [*gathers, Collective("reduce-scatter", last), Collective("reduce-scatter", first)]
    held = bytes_held(model.state_dict())
    assert held == (first + last) // num_processes
    assert bytes_held(optimizer.state_dict()) == 2 * held + 4 * BYTES


def test_what_is_saved_for_the_backward_pass_is_counted_once_and_until_it_is_freed() -> None:
    layer, saved = nn.Linear(4, 6), SavedForBackward()
    for _ in range(3):  # one after the other, so that nothing adds up
        with saved.counted():
            outputs = layer(torch.ones(10, 4)).exp()  # saves inputs (10, 4) and outputs (10, 6); the weight is no more
            (outputs * outputs).sum().backward()
        assert saved.peak == (10 * 4 + 10 * 6) * BYTES
        del outputs


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--check", "--as-if", "0"], "--as-if: '0'; give a number of processes from 1 to 4096, or 2,4,8"),
        (["--check", "--as-if", "-1"], "--as-if: '-1'; give"),
        (["--check", "--as-if", "many"], "--as-if: 'many'; give"),
        (["--check", "--as-if", "2,,4"], "--as-if: '2,,4'; give"),
        (["--check", "--as-if", "4097"], "--as-if: '4097'; give"),
        (["--as-if", "4"], "--as-if goes with --check: it trains nothing"),
        (["--check", "--link-speed", "1GB/s"], "--link-speed and --link-latency go with --as-if"),
        (["--check", "--as-if", "4", "--link-speed", "25"], "--link-speed: '25' is no speed; give one such as 25GB/s"),
        (["--check", "--as-if", "4", "--link-speed", "0GB/s"], "--link-speed: '0GB/s' is no speed"),
        (["--check", "--as-if", "4", "--link-latency", "1h"], "--link-latency: '1h' is no time; give one such as 20us"),
    ],
)
def test_wrong_flags_are_refused_in_one_line(args: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        toy.parse_args(["-c", write_given(small_config(tmp_path / "saved")), *args])
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)
    assert not dist.is_initialized()
