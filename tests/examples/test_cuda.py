"""What only a GPU can show: batches copied aside, data kept on the device, the step as a graph."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from base import Microbatch
from example_runs import run_train, train
from helpers import assert_equal, newest, records_of
from speed import prefetch
from utils import ConfigError

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU at hand")


@pytest.fixture
def gpu_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return the config, on the GPU, on all digits, with only deterministic kernels."""
    config["n_gpu"] = 1
    config["data_loader"]["args"] |= {"source": "digits", "batch_size": 64, "validation_split": 0.1}
    config["trainer"] |= {"deterministic": True, "epochs": 3}
    return config


def trained(config: dict[str, Any], **options: Any) -> Path:
    """Train with further options of the trainer."""
    return train(config | {"trainer": config["trainer"] | options})


@needs_gpu
def test_a_run_of_replayed_steps_ends_as_one_of_launched_steps(gpu_config: dict[str, Any]) -> None:
    launched, replayed = trained(gpu_config), trained(gpu_config, cuda_graph=True)
    assert_equal(newest(launched)["position"], newest(replayed)["position"])
    for name, weight in newest(launched)["model"].items():
        torch.testing.assert_close(newest(replayed)["model"][name], weight)


@needs_gpu
@pytest.mark.parametrize("cuda_graph", [False, True])
def test_resumed_is_uninterrupted_on_a_gpu(gpu_config: dict[str, Any], cuda_graph: bool) -> None:
    gpu_config["trainer"] |= {"cuda_graph": cuda_graph, "ema_decay": 0.9}
    whole, part = trained(gpu_config), trained(gpu_config, epochs=1)
    resumed = run_train("-r", str(part), "--set", "trainer.epochs=3")
    assert_equal(newest(whole)["model"], newest(resumed)["model"])
    assert records_of(whole) == records_of(resumed)


@needs_gpu
@pytest.mark.parametrize("num_workers", [0, 2])
def test_data_that_is_copied_aside_gives_the_run_of_data_on_the_device(
    gpu_config: dict[str, Any], num_workers: int
) -> None:
    resident = trained(gpu_config, device_resident=True)
    gpu_config["data_loader"]["args"]["num_workers"] = num_workers
    copied = trained(gpu_config, device_resident=False)
    assert_equal(newest(resident)["model"], newest(copied)["model"])


@needs_gpu
def test_batches_that_are_on_the_device_already_are_read_after_they_are_written() -> None:
    def batches() -> Iterator[Any]:
        for i in range(5):
            images = torch.zeros(64, 3, 32, 32, device="cuda")
            torch.cuda._sleep(10_000_000)  # the host is far ahead of what follows
            yield [(images + i, torch.full((64,), i, device="cuda"))]

    for [(images, labels)] in prefetch(batches(), torch.device("cuda"), torch.channels_last):
        assert torch.equal(images.amax(dim=(1, 2, 3)), labels.float())


@needs_gpu
def test_bf16_and_graph_together(gpu_config: dict[str, Any]) -> None:
    run_dir = trained(gpu_config, cuda_graph=True, precision="bf16", epochs=8)
    assert newest(run_dir)["log"]["val_accuracy"] > 0.9


def test_compiled_graphs_do_not_go_with_microbatches(config: dict[str, Any]) -> None:
    config["trainer"] |= {"compile": {"mode": "reduce-overhead"}, "grad_accum_steps": 2}
    with pytest.raises(ConfigError, match=r"trainer.compile.mode: reduce-overhead does not go with grad_accum_steps"):
        train(config)


def test_a_graph_without_a_gpu_is_told(config: dict[str, Any]) -> None:
    config["trainer"]["cuda_graph"] = True
    with pytest.raises(ConfigError, match=r"trainer.cuda_graph: it needs a GPU; this run is on cpu"):
        train(config)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_gpu)])
def test_prefetched_batches_are_the_batches_in_their_order(device: str) -> None:
    steps = [[Microbatch((torch.full((4, 1, 3, 3), float(i)), {"a": torch.tensor(i)}), i)] for i in range(5)]
    got = [microbatch for [microbatch] in prefetch(iter(steps), torch.device(device), torch.channels_last)]
    assert [batch[0][0, 0, 0, 0].item() for batch, _ in got] == [0, 1, 2, 3, 4]
    assert [batch[1]["a"].item() for batch, _ in got] == [0, 1, 2, 3, 4]
    assert [microbatch.num_samples for microbatch in got] == [0, 1, 2, 3, 4]
    assert got[0].batch[0].device.type == device
    assert list(prefetch(iter([]), torch.device(device))) == []


def test_data_that_workers_read_cannot_be_kept_on_the_device(config: dict[str, Any]) -> None:
    config["data_loader"]["args"]["num_workers"] = 2
    config["trainer"]["device_resident"] = True
    with pytest.raises(ConfigError, match=r"trainer.device_resident: .*workers read it"):
        train(config)
