"""What of several processes needs no whole run: refusing, exchanging, deciding."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from base import Microbatch
from distributed.data_parallel import DataParallel
from distributed.failures import PeerFailedError, failures_shared, introduce
from faults import exit_code
from helpers import write_given
from parse_config import TrainerOptions
from processes import start_all
from toy_runs import small_config
from utils import DataError, Position

CPU = torch.device("cpu")


@pytest.fixture
def strategy() -> Iterator[DataParallel]:
    """Return the strategy of torch's DDP, of a group of one process."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    introduce()
    yield DataParallel(TrainerOptions(epochs=1), CPU, 0)
    dist.destroy_process_group()


def test_a_loop_of_its_own_is_refused_rather_than_run_by_each_process(tmp_path: Path) -> None:
    config = small_config(tmp_path / "run")
    stderr = tmp_path / "errors.txt"
    processes = start_all(2, "-c", write_given(config), script="toy", stderr=stderr)
    assert [exit_code(process) for process in processes] == [2, 2]
    said = "".join(stderr.with_suffix(f".{number}").read_text() for number in range(2))
    assert said.count("ToyTrainer._train_epoch is a loop of its own, which several processes cannot share") == 1
    assert not list((tmp_path / "run").glob("*/*"))


def test_gradients_are_exchanged_in_the_last_microbatch_alone(strategy: DataParallel) -> None:
    model, num_exchanged = nn.Linear(2, 1), 0
    strategy.attach([model], list(model.parameters()), Position())

    def exchange(state: object, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
        nonlocal num_exchanged
        num_exchanged += 1
        done: torch.futures.Future[Tensor] = torch.futures.Future()
        done.set_result(bucket.buffer())
        return done

    exchange.__annotations__.update({"bucket": dist.GradBucket, "return": torch.futures.Future[Tensor]})  # torch looks
    model.register_comm_hook(None, exchange)  # type: ignore[operator]  # a method that the strategy gave it
    counts = []
    for (inputs, _), _ in strategy.passes([Microbatch(torch.ones(2, 2), 2)] * 3, [2.0] * 3):
        model(inputs).sum().backward()
        counts.append(num_exchanged)
    assert counts == [0, 0, 1]
    assert model.weight.grad is not None
    assert torch.equal(model.weight.grad, torch.full((1, 2), 6.0))


def test_a_slice_without_samples_weighs_nothing(strategy: DataParallel) -> None:
    microbatches = [Microbatch(torch.ones(3), 3), Microbatch(torch.ones(2), 0)]
    weights, total = strategy.begin_step(microbatches, [3.0, torch.tensor(2.0)])
    assert [float(weight) for weight in weights] == [3.0, 0.0]
    assert float(total()) == 3.0


def test_a_signal_is_agreed_on_in_the_next_meeting_and_a_save_is_made_once(strategy: DataParallel) -> None:
    assert strategy.agreed_signal(signal.SIGTERM) is None
    assert not strategy.agreed_save(is_due=True)
    strategy.meet()
    assert strategy.agreed_signal(None) is signal.SIGTERM
    assert strategy.agreed_save(is_due=True)
    strategy.meet()
    assert not strategy.agreed_save(is_due=False)


@pytest.mark.usefixtures("strategy")
def test_an_error_of_ones_own_stays_and_one_of_a_broken_connection_gives_the_reason() -> None:
    with pytest.raises(DataError, match="row 7"), failures_shared():
        raise DataError("row 7")
    with pytest.raises(PeerFailedError, match=r"^row 7$") as caught, failures_shared():
        raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:41999")
    assert caught.value.exit_code == DataError.exit_code
