"""Levers change how fast the same training is and nothing else; an average of the weights is that of its formula."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

import toy
from base import Ema
from helpers import assert_equal, newest
from logger import TensorboardWriter
from speed import StepProfiler, clip_gradients, fast_kernels, input_format, lay_out, set_process_modes
from speed.levers import recompute_activations
from toy_runs import run, small_config, train
from utils import ConfigError

CPU = torch.device("cpu")


def options(**values: Any) -> Any:
    """Return the options of a trainer, some of them changed."""
    return toy.ToyOptions(epochs=1, **values)


class ConvNet(nn.Module):
    """A convolution and a linear layer; with `view`, which only one memory layout can do."""

    def __init__(self, has_view: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4 * 4 * 4, 2)
        self.has_view = has_view

    def forward(self, images: Tensor) -> Tensor:
        x = self.norm(self.conv(images))
        return self.head(x.view(len(x), -1) if self.has_view else x.flatten(1))


IMAGES = torch.rand(5, 3, 6, 6)


@pytest.mark.parametrize("has_view", [False, True])
@pytest.mark.parametrize("channels_last", [True, False, "auto"])
def test_convolutions_are_laid_out_where_that_works_and_gives_the_same(
    channels_last: bool | str, has_view: bool
) -> None:
    torch.manual_seed(0)
    model = ConvNet(has_view).eval()
    expected = model(IMAGES)
    if has_view and channels_last is True:
        assert lay_out(model, True, CPU, lambda: None)  # who says so gets it
        return
    is_laid_out = lay_out(model, channels_last, CPU, lambda: model(IMAGES.to(memory_format=torch.channels_last)))
    assert is_laid_out is (channels_last is True or (channels_last == "auto" and not has_view))
    assert input_format(model) == (torch.channels_last if is_laid_out else torch.contiguous_format)
    torch.testing.assert_close(model(IMAGES.to(memory_format=input_format(model))), expected)


def test_a_model_without_convolutions_is_left_alone() -> None:
    model = toy.ToyNet()
    assert not lay_out(model, True, CPU, lambda: pytest.fail("tried"))
    assert input_format(model) == torch.contiguous_format


@pytest.mark.parametrize("patterns", [["hidden"], ["hidden", "head"], ["*"], []])
def test_recomputed_activations_give_the_same_gradients_and_the_same_names(patterns: list[str]) -> None:
    gradients = []
    inputs, targets = torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    for recompute in (False, True):
        torch.manual_seed(0)
        model = toy.ToyNet(dropout=0.5)
        names = list(model.state_dict())
        if recompute:
            recompute_activations(model, patterns)
        toy.toy_loss(model(inputs), targets).backward()
        assert list(model.state_dict()) == names
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert_equal(gradients[0], gradients[1])


def test_a_pattern_that_fits_no_submodule_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"^trainer.grad_checkpointing: no submodule 'heda'; did you mean 'head'\?$"):
        recompute_activations(toy.ToyNet(), ["head", "heda"])


@pytest.mark.parametrize(
    ("optimizer", "args", "expected"),
    [
        (torch.optim.Adam, {}, {"fused": True}),
        (torch.optim.SGD, {"momentum": 0.9}, {"fused": True}),
        (torch.optim.Adam, {"foreach": True}, {}),
        (torch.optim.Adam, {"fused": False}, {}),
        (torch.optim.RMSprop, {}, {}),
    ],
)
def test_fused_kernels_are_taken_where_they_work_and_the_config_does_not_choose(
    optimizer: Any, args: dict[str, Any], expected: dict[str, bool]
) -> None:
    params = list(nn.Linear(2, 2).parameters())
    assert fast_kernels(partial(optimizer, **args), params, options()) == expected
    assert fast_kernels(partial(optimizer, **args), [{"params": params}], options()) == expected


def test_what_cannot_be_fused_is_refused_or_left() -> None:
    params = list(nn.Linear(2, 2).parameters())
    sgd = partial(torch.optim.SGD, momentum=0.9)
    assert fast_kernels(sgd, params, options(precision="fp16")) == {}
    with pytest.raises(ConfigError, match=r"optimizer\.args\.fused: SGD with momentum cannot be fused"):
        fast_kernels(partial(sgd, fused=True), params, options(precision="fp16"))
    complex_params = [nn.Parameter(torch.zeros(1, dtype=torch.complex64))]
    assert fast_kernels(partial(torch.optim.Adam), complex_params, options()) == {}


def test_the_kernels_that_a_run_took_are_in_its_config_and_it_goes_on_with_them(tmp_path: Path) -> None:
    run_dir = train(small_config(tmp_path / "saved", trainer__epochs=1))
    assert json.loads((run_dir / "config.json").read_text())["optimizer"]["args"] == {"lr": 0.01, "fused": True}
    run("-r", str(run_dir), "--set", "trainer.epochs=2")
    assert_equal(newest(run_dir)["model"], newest(train(small_config(tmp_path / "whole")))["model"])


@pytest.mark.parametrize("max_norm", [0.1, 1e9, math.inf])
def test_clipping_is_torchs_own(max_norm: float) -> None:
    grads = []
    for clip in (clip_gradients, nn.utils.clip_grad_norm_):
        torch.manual_seed(0)
        layer = nn.Linear(3, 3)
        layer(torch.rand(4, 3)).square().sum().backward()
        norm = clip(list(layer.parameters()), max_norm)
        grads.append([norm, *(parameter.grad for parameter in layer.parameters())])
    for one, other in zip(*grads):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("is_on", [True, False])
def test_modes_of_the_process_are_those_of_the_options(is_on: bool) -> None:
    try:
        set_process_modes(options(deterministic=is_on, detect_anomaly=is_on, keep_memory=False), CPU)
        assert torch.are_deterministic_algorithms_enabled() is is_on
        assert torch.is_anomaly_enabled() is is_on
    finally:
        set_process_modes(options(keep_memory=False), CPU)


def test_the_profiler_writes_one_trace_of_a_few_steps_or_none(tmp_path: Path) -> None:
    writer = TensorboardWriter(tmp_path / "events")
    for is_enabled in (False, True):
        profiler = StepProfiler(is_enabled)
        for _ in range(12):
            torch.ones(2) + 1
            profiler.step(tmp_path, writer)
        assert (tmp_path / "trace.json").exists() is is_enabled
    names = {event["name"] for event in json.loads((tmp_path / "trace.json").read_text())["traceEvents"]}
    assert "aten::add" in names
    writer.close()
    assert EventAccumulator(str(tmp_path / "events")).Reload().Tags()["tensors"] == ["profile/text_summary"]


@pytest.mark.parametrize("option", [{"trainer__compile": {"mode": "fastest"}}, {"trainer__compile": {"dynamc": True}}])
def test_options_of_compile_are_checked(option: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"trainer\.compile\."):
        train(small_config(tmp_path, **option))


# An average of the weights.


def step(model: nn.Module, seed: int) -> None:
    """Change weights and statistics."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    model(torch.randn(5, 4))


def test_the_average_is_that_of_its_formula_and_buffers_are_the_models() -> None:
    model = toy.ToyNet()
    ema = Ema(model, 0.75)
    expected: dict[str, Tensor] = {}
    for seed in range(4):
        step(model, seed)
        ema.update()
        for name, parameter in model.named_parameters():
            weight = parameter.detach().clone()
            expected[name] = weight if seed == 0 else 0.75 * expected[name] + 0.25 * weight
    averaged = dict(ema.eval_model.named_parameters())
    for name, weight in expected.items():
        torch.testing.assert_close(averaged[name].detach(), weight)
    assert_equal(dict(ema.eval_model.named_buffers()), dict(model.named_buffers()))
    assert not any(parameter.requires_grad for parameter in averaged.values())


def test_a_restored_average_goes_on_as_the_first() -> None:
    first, second = toy.ToyNet(), toy.ToyNet()
    averages = Ema(first, 0.5), Ema(second, 0.5)
    for seed in range(3):
        step(first, seed)
        averages[0].update()
    second.load_state_dict(first.state_dict())
    averages[1].load_state_dict(averages[0].state_dict())
    for model, ema in zip((first, second), averages):
        step(model, 9)
        ema.update()
    assert_equal(averages[0].state_dict(), averages[1].state_dict())


def test_without_a_decay_there_is_no_average() -> None:
    model = toy.ToyNet()
    ema = Ema(model, None)
    ema.update()
    assert ema.eval_model is model
    assert ema.state_dict() == {}
    ema.load_state_dict({})


def test_options_of_the_engine_need_no_object_of_its_own() -> None:
    """A fork may hand over whatever has the attributes."""
    loose = SimpleNamespace(cuda_graph=False, precision="fp32")
    assert fast_kernels(partial(torch.optim.Adam), list(nn.Linear(1, 1).parameters()), loose) == {"fused": True}
