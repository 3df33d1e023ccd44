"""utils/device.py: choosing the device."""

from __future__ import annotations

import pytest
import torch

from utils import ConfigError, prepare_device
from utils.device import processor_name


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("gpu", "device: unknown device 'gpu'; allowed: auto, cpu, mps, cuda, cuda:N"),
        ("cuda:999", "device: 'cuda:999' is not there; this machine has "),
        ("999", "device: '999' is not there; this machine has "),
    ],
)
def test_a_device_that_is_unknown_or_not_there_is_refused(device: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        prepare_device(1, device)
    assert str(caught.value).startswith(message)


def test_several_processes_are_refused_rather_than_each_training_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")  # torchrun with one process is fine
    assert prepare_device(0) == (torch.device("cpu"), [])
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="torchrun started 2 processes, but this script is for one"):
        prepare_device(0)


def test_the_processor_has_a_name() -> None:
    assert processor_name(torch.device("cpu"))
