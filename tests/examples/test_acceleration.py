"""Levers change how fast a run is and what it is made of, never what it computes beyond rounding, nor its names."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

from example_runs import run_train, train
from helpers import assert_equal, epochs_of, newest, records_of
from model.model import MLP, MnistModel
from parse_config import TrainerOptions
from speed import accelerate, clip_gradients, fast_kernels, input_format, lay_out, set_process_modes
from speed.levers import recompute_activations
from utils import ConfigError

CPU = torch.device("cpu")
PLAIN = TrainerOptions(epochs=1)
CAPTURED = TrainerOptions(epochs=1, cuda_graph=True)


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the gradients of one forward and backward pass with dropout, always the same."""
    torch.manual_seed(0)
    images = torch.randn(8, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    model.zero_grad()
    model(images).square().sum().backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("optimizer", ["Adam", "AdamW", "SGD", "Adagrad", "RMSprop", "Adadelta"])
def test_fused_is_taken_where_a_step_with_it_works_and_left_where_the_config_chooses(optimizer: str) -> None:
    cls = getattr(torch.optim, optimizer)
    params = [torch.zeros(3)]
    has_kernel = optimizer in ("Adam", "AdamW", "SGD", "Adagrad")  # on a CPU
    assert fast_kernels(partial(cls, lr=0.1), params, PLAIN) == ({"fused": True} if has_kernel else {})
    assert fast_kernels(partial(cls, foreach=False), params, PLAIN) == {}


def test_weights_that_no_fused_kernel_takes_leave_the_optimizer_as_it_is() -> None:
    assert fast_kernels(partial(torch.optim.Adam), [torch.zeros(1, dtype=torch.complex64)], PLAIN) == {}


def test_what_a_graph_needs_of_an_optimizer_is_asked_for_or_told() -> None:
    weights = [torch.zeros(1)]
    assert fast_kernels(partial(torch.optim.NAdam), weights, CAPTURED) == {"capturable": True}
    assert fast_kernels(partial(torch.optim.SGD), weights, CAPTURED) == {"fused": True}
    with pytest.raises(ConfigError, match="cuda_graph: Adafactor cannot be captured"):
        fast_kernels(partial(torch.optim.Adafactor), weights, CAPTURED)


def test_sgd_whose_first_step_the_loss_scaler_may_skip_is_not_fused(config: dict[str, Any]) -> None:
    weights, fp16 = [torch.zeros(1)], TrainerOptions(epochs=1, precision="fp16")
    assert fast_kernels(partial(torch.optim.SGD, momentum=0.9), weights, fp16) == {}
    assert fast_kernels(partial(torch.optim.SGD), weights, fp16) == {"fused": True}
    config["optimizer"] = {"type": "SGD", "args": {"momentum": 0.9, "fused": True}}
    config["trainer"]["precision"] = "fp16"
    with pytest.raises(ConfigError, match=r"optimizer.args.fused: SGD with momentum"):
        train(config)


@pytest.mark.slow
def test_a_run_says_in_its_config_which_kernels_it_took_and_goes_on_with_them(config: dict[str, Any]) -> None:
    run_dir = train(config, "--set", "trainer.epochs=1")
    assert newest(run_dir)["config"]["optimizer"]["args"]["fused"] is True
    resumed = run_train("-r", str(run_dir), "--set", "trainer.epochs=2")
    assert_equal(newest(train(config))["model"], newest(resumed)["model"])


@pytest.mark.parametrize("channels_last", [True, "auto"])
def test_channels_last_is_the_layout_of_convolutions_alone_and_changes_only_the_rounding(
    channels_last: bool | str,
) -> None:
    torch.manual_seed(0)
    plain, fast = MnistModel(), MnistModel()
    fast.load_state_dict(plain.state_dict())
    assert lay_out(fast, channels_last, CPU, lambda: gradients(fast))
    assert fast.conv2.weight.is_contiguous(memory_format=torch.channels_last)
    assert (input_format(plain), input_format(fast)) == (torch.contiguous_format, torch.channels_last)
    for name, gradient in gradients(plain).items():
        torch.testing.assert_close(gradients(fast)[name], gradient)


class Viewer(nn.Module):
    """A model that takes the memory of an output to be contiguous."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.conv(images).view(len(images), -1)


def test_auto_leaves_a_model_that_another_layout_breaks_as_it_is_and_true_does_not() -> None:
    model, images = Viewer(), torch.randn(4, 1, 28, 28)
    before = model(images)
    assert not lay_out(model, "auto", CPU, lambda: model(images))
    assert model.conv.weight.is_contiguous()
    assert torch.equal(model(images), before)
    assert lay_out(model, True, CPU, lambda: None)
    with pytest.raises(RuntimeError, match="view size is not compatible"):
        model(images)


@pytest.mark.parametrize(("channels_last", "device"), [(False, "cpu"), ("auto", "mps")])
def test_a_layout_that_is_not_asked_for_or_not_faster_is_not_tried(channels_last: bool | str, device: str) -> None:
    model = MnistModel()
    assert not lay_out(model, channels_last, torch.device(device), pytest.fail)
    assert input_format(model) == torch.contiguous_format


def test_a_model_without_convolutions_keeps_the_layout_of_its_inputs() -> None:
    model = MLP(3, [4])
    assert not lay_out(model, True, CPU, pytest.fail)
    assert input_format(model) == torch.contiguous_format


def test_the_layout_that_auto_resolved_to_is_in_the_config_of_the_run(config: dict[str, Any]) -> None:
    run_dir = train(config, "--fast-dev-run")
    assert newest(run_dir)["config"]["trainer"]["channels_last"] is True


@pytest.mark.parametrize("patterns", [["conv*"], ["fc1", "conv1"], ["*"]])
def test_recomputed_activations_give_the_same_gradients_to_the_bit_and_the_same_names(patterns: list[str]) -> None:
    torch.manual_seed(0)
    model = MnistModel()
    names, expected = list(model.state_dict()), gradients(model)
    recompute_activations(model, patterns)
    assert_equal(expected, gradients(model))
    assert list(model.state_dict()) == names


def num_kept(model: nn.Module) -> int:
    """Return how many tensors a forward pass keeps for the backward one."""
    kept: set[int] = set()

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.add(tensor.data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(torch.randn(32, 64))
    return len(kept)


def test_recomputed_activations_are_not_kept() -> None:
    model = nn.Sequential(nn.Sequential(*[nn.Sequential(nn.Linear(64, 64), nn.Tanh()) for _ in range(8)]))
    before = num_kept(model)
    recompute_activations(model, ["0"])
    assert num_kept(model) < before / 4


def test_of_modules_inside_each_other_the_outermost_is_recomputed_once() -> None:
    inner, calls = nn.Linear(4, 4), []
    model = nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.Sequential(inner)))
    inner.register_forward_pre_hook(lambda module, args: calls.append(1))
    recompute_activations(model, ["0*", "0.1", "*"])
    model(torch.randn(2, 4)).sum().backward()
    assert len(calls) == 2  # forward, and once more for the gradient


def test_a_pattern_that_fits_no_submodule_is_told_with_the_nearest(config: dict[str, Any]) -> None:
    config["trainer"]["grad_checkpointing"] = ["conv3"]
    with pytest.raises(ConfigError, match=r"trainer.grad_checkpointing: no submodule 'conv3'; did you mean 'conv"):
        train(config)


@pytest.mark.parametrize("change", [{"grad_checkpointing": ["conv*"]}, {"channels_last": False}])
def test_a_run_with_a_lever_ends_as_one_without_it_but_for_rounding(
    config: dict[str, Any], change: dict[str, Any]
) -> None:
    expected = epochs_of(train(config))
    config["trainer"] |= change
    for record, other in zip(expected, epochs_of(train(config)), strict=True):
        assert other["val_loss"] == pytest.approx(record["val_loss"], rel=2e-2)


@pytest.mark.parametrize(
    "compiled",
    [pytest.param({}, marks=pytest.mark.slow), {"mode": "max-autotune", "dynamic": None, "fullgraph": True}],
)
def test_a_compiled_model_keeps_its_names(compiled: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = MnistModel()
    names, expected = list(model.state_dict()), gradients(model)
    options = TrainerOptions.model_validate({"epochs": 1, "compile": compiled})
    accelerate(model, options)
    assert list(model.state_dict()) == names
    assert model._compiled_call_impl is not None
    with torch.compiler.set_stance("force_eager"):
        assert_equal(expected, gradients(model))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_run_has_clean_names_and_goes_on_to_the_bit(config: dict[str, Any]) -> None:
    config["trainer"]["compile"] = {}
    whole = train(config)
    part = train(config, "--set", "trainer.epochs=1")
    resumed = run_train("-r", str(part), "--set", "trainer.epochs=2")
    assert list(newest(whole)["model"]) == list(MnistModel().state_dict())
    assert newest(whole)["config"]["trainer"]["compile"] == {"mode": "default", "dynamic": False, "fullgraph": False}
    assert_equal(newest(whole)["model"], newest(resumed)["model"])
    assert records_of(whole) == records_of(resumed)


@pytest.mark.parametrize("max_norm", [0.5, 1e6, float("inf")])
def test_clipping_is_torchs_own(max_norm: float) -> None:
    model = MLP(3, [4])
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    parameters = list(model.parameters())
    before = [parameter.grad.clone() for parameter in parameters if parameter.grad is not None]
    norm = clip_gradients(parameters, max_norm)
    clipped = [parameter.grad for parameter in parameters]
    for parameter, gradient in zip(parameters, before):
        parameter.grad = gradient
    assert norm == clip_grad_norm_(parameters, max_norm)
    assert_equal(clipped, [parameter.grad for parameter in parameters])


def page_faults_of_a_step() -> int:
    """Return how many pages the system has to hand out for the activations of a step, 40 MiB each."""
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    activations = [torch.ones(10 << 20) for _ in range(2)]
    del activations
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def write_page_faults(path: Path) -> None:
    """Write the page faults of a step with keep_memory off, with it on but on a GPU, and with it on on a CPU."""
    counts = []
    for keep_memory, device in ((False, "cpu"), (True, "cuda"), (True, "cpu")):
        set_process_modes(TrainerOptions(epochs=1, keep_memory=keep_memory), torch.device(device))
        counts.append(min(page_faults_of_a_step() for _ in range(3)))
    path.write_text(json.dumps(counts))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="sets what others do by themselves")
def test_memory_that_a_step_frees_is_kept_for_the_next_steps_on_a_cpu_unless_keep_memory_is_off(tmp_path: Path) -> None:
    from faults import CONTEXT, PRELOAD, exit_code

    CONTEXT.set_forkserver_preload([*PRELOAD, "train"])  # where this is the first: other tests use the server too
    process = CONTEXT.Process(target=write_page_faults, args=(tmp_path / "counts.json",))
    process.start()
    assert exit_code(process) == 0
    off, on_gpu, on = json.loads((tmp_path / "counts.json").read_text())
    assert on * 100 < off
    assert on * 100 < on_gpu


@pytest.fixture
def default_modes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Set the modes of the process back to those of the default options."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    yield
    set_process_modes(PLAIN, CPU)


@pytest.mark.usefixtures("default_modes")
@pytest.mark.parametrize("is_deterministic", [True, False])
def test_deterministic_algorithms_are_a_mode_of_torch(is_deterministic: bool) -> None:
    set_process_modes(TrainerOptions(epochs=1, deterministic=is_deterministic), CPU)
    assert torch.are_deterministic_algorithms_enabled() == is_deterministic
    assert torch.backends.cudnn.benchmark != is_deterministic
    assert ("CUBLAS_WORKSPACE_CONFIG" in os.environ) == is_deterministic


@pytest.mark.usefixtures("default_modes")
def test_detecting_anomalies_is_a_mode_of_torch() -> None:
    set_process_modes(TrainerOptions(epochs=1, detect_anomaly=True), CPU)
    assert torch.is_anomaly_enabled()
    set_process_modes(PLAIN, CPU)
    assert not torch.is_anomaly_enabled()


@pytest.mark.usefixtures("default_modes")
def test_modes_are_those_of_this_run(config: dict[str, Any]) -> None:
    train(config, "--fast-dev-run", "--set", "trainer.precision=tf32", "--deterministic")
    assert torch.get_float32_matmul_precision() == "high"
    assert torch.are_deterministic_algorithms_enabled()
    train(config, "--fast-dev-run")
    assert torch.get_float32_matmul_precision() == "highest"
    assert not torch.are_deterministic_algorithms_enabled()
