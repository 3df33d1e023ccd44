"""A state that no part of the run could have is refused; an optimizer's goes to the right weights in any layout."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

from base.monitor import Monitor
from checkpoint.file import load_checkpoint, serialise
from checkpoint.parts import load_part, saved_facts
from utils import CheckpointError, MetricTracker
from utils.errors import printable
from utils.failures import exit_on_user_error
from utils.rng import rng_state, set_rng_state

NAMES = [
    *("ASGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "Muon"),
    *("NAdam", "RAdam", "RMSprop", "Rprop", "SGD"),
]
FUSED = [name for name in NAMES if "fused" in inspect.signature(getattr(torch.optim, name)).parameters]
OPTIMIZERS = [*((name, False) for name in NAMES), *((name, True) for name in FUSED)]
CPU = torch.device("cpu")


class Net(nn.Module):
    """A convolution, whose weight has a layout, and a matrix."""

    def __init__(self, with_images: bool = True) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        if with_images:
            self.images = nn.Parameter(torch.randn(4, 3, 5, 5, generator=generator))
        self.matrix = nn.Parameter(torch.randn(6, 7, generator=generator))


def make(name: str, fused: bool, is_last: bool = False) -> tuple[Net, torch.optim.Optimizer]:
    """Return a small model and its optimizer; Muon takes matrices alone."""
    net = Net(with_images=name != "Muon")
    if is_last:
        net.to(memory_format=torch.channels_last)
    args: dict[str, Any] = {"lr": 0.1} | ({"fused": True} if fused else {})
    args |= {"momentum": 0.9} if name == "SGD" else {}
    return net, getattr(torch.optim, name)(net.parameters(), **args)


def step(net: Net, optimizer: torch.optim.Optimizer, seed: int) -> None:
    """Make a step with random gradients."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in net.parameters():
        grad = torch.randn(parameter.shape, generator=generator)
        parameter.grad = torch.empty_like(parameter).copy_(grad)
    optimizer.step()


def trained(name: str, fused: bool, is_last: bool = False) -> tuple[Net, torch.optim.Optimizer, dict[str, Any]]:
    """Return a model and optimizer after two steps, and its state as a checkpoint has it."""
    net, optimizer = make(name, fused, is_last)
    step(net, optimizer, 1)
    step(net, optimizer, 2)
    return net, optimizer, copy.deepcopy(optimizer.state_dict())


def elementwise(state: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Return the state of the first parameter, and the name of its largest tensor."""
    values = state["state"][0]
    return values, max(values, key=lambda key: values[key].numel())


def with_tensor(change: Callable[[Tensor], Tensor]) -> Callable[[dict[str, Any]], None]:
    """Return a mutation of the largest tensor of the first parameter."""

    def mutate(state: dict[str, Any]) -> None:
        values, key = elementwise(state)
        values[key] = change(values[key])

    return mutate


MUTATIONS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "larger": with_tensor(lambda tensor: torch.zeros([size + 1 for size in tensor.shape])),
    "smaller": with_tensor(lambda tensor: torch.zeros([1] * tensor.ndim)),
    "flat": with_tensor(lambda tensor: tensor.flatten()),
    "empty": with_tensor(lambda tensor: torch.zeros(0)),
    "scalar": with_tensor(lambda tensor: torch.zeros(())),
    "another dtype": with_tensor(Tensor.double),
    "half": with_tensor(Tensor.half),
    "complex": with_tensor(lambda tensor: tensor.to(torch.complex64)),
    "no tensor": with_tensor(lambda tensor: None),  # type: ignore[arg-type, return-value]
    "missing": lambda state: state["state"][0].pop(elementwise(state)[1]),
    "one more": lambda state: state["state"][0].update(more=torch.zeros(2)),
    "of no parameter": lambda state: state["state"].update({9: state["state"][0]}),
    "swapped parameters": lambda state: (
        state["param_groups"][0]["params"].reverse() or state["param_groups"].append({})
    ),
    "lr NaN": lambda state: state["param_groups"][0].update(lr=math.nan),
    "lr negative": lambda state: state["param_groups"][0].update(lr=-0.1),
    "lr beyond floats": lambda state: state["param_groups"][0].update(lr=10**400),
    "lr beyond float32": lambda state: state["param_groups"][0].update(lr=1e300),
    "lr missing": lambda state: state["param_groups"][0].pop("lr"),
    "an option more": lambda state: state["param_groups"][0].update(more=1),
    "a flag turned": lambda state: state["param_groups"][0].update(
        (key, not value) for key, value in state["param_groups"][0].items() if isinstance(value, bool)
    ),
    "pairs cut": lambda state: state["param_groups"][0].update(
        {key: value[:1] if isinstance(value, tuple) else math.inf for key, value in state["param_groups"][0].items()}
        | {"params": state["param_groups"][0]["params"]}
    ),
}


@pytest.mark.parametrize(("name", "fused"), OPTIMIZERS, ids=str)
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_state_that_the_optimizer_could_not_have_is_refused_in_one_line(
    name: str, fused: bool, mutation: str
) -> None:
    _, _, state = trained(name, fused)
    MUTATIONS[mutation](state)
    _, fresh = make(name, fused)
    with pytest.raises(CheckpointError, match=r"^FILE: ") as caught:
        load_part(fresh, state, "FILE")
    assert "\n" not in str(caught.value)
    assert not any("momentum_buffer" in values or "exp_avg" in values for values in fresh.state.values())


VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "expanded": lambda tensor: (
        tensor.flatten()[:1].expand(tensor.numel()).view(1, -1).expand(1, -1).reshape(-1)[:1].expand(tensor.shape)
    ),
    "overlapping": lambda tensor: torch.as_strided(tensor.clone(), tensor.shape, [1] * tensor.ndim),
    "with gaps": lambda tensor: tensor.new_zeros(*tensor.shape, 2)[..., 0],
    "claiming 4 TB": lambda tensor: torch.zeros(1, 1).expand(2**20, 2**20),
    "with a gradient": lambda tensor: tensor.clone().requires_grad_(),
    "conjugate": lambda tensor: tensor.to(torch.complex64).conj(),
}


@pytest.mark.parametrize("where", ["optimizer", "train_metrics", "facts", "ema"])
@pytest.mark.parametrize("view", VIEWS)
def test_a_tensor_that_is_a_view_is_refused_wherever_it_is(view: str, where: str, tmp_path: Any) -> None:
    state = {"position": {"epoch": 1, "step_in_epoch": 0}, where: {"deep": [VIEWS[view](torch.randn(3, 4))]}}
    path = tmp_path / "latest.pth"
    path.write_bytes(serialise(state))
    with pytest.raises(CheckpointError, match="view of another"):
        load_checkpoint(path)


def test_memory_may_be_shared_by_the_weights_of_a_model_and_by_nothing_else(tmp_path: Any) -> None:
    tied, path = torch.randn(3, 4), tmp_path / "latest.pth"
    position = {"epoch": 1, "step_in_epoch": 0}
    path.write_bytes(serialise({"position": position, "model": {"encoder": tied, "decoder": tied}}))
    assert torch.equal(load_checkpoint(path)["model"]["decoder"], tied)
    path.write_bytes(serialise({"position": position, "optimizer": {"exp_avg": tied, "exp_avg_sq": tied}}))
    with pytest.raises(CheckpointError, match="view of another"):
        load_checkpoint(path)


@pytest.mark.parametrize(("name", "fused"), OPTIMIZERS, ids=str)
@pytest.mark.parametrize("is_last", [True, False])
def test_a_state_goes_to_the_same_elements_in_another_layout(name: str, fused: bool, is_last: bool) -> None:
    net, optimizer, state = trained(name, fused, is_last)
    other, moved = make(name, fused, not is_last)
    other.load_state_dict(net.state_dict())
    load_part(moved, state, "FILE")
    # By hand: the same numbers, element by element, in the layout of the weight.
    by_hand, expected = make(name, fused, not is_last)
    by_hand.load_state_dict(net.state_dict())
    for old, new in zip(net.parameters(), by_hand.parameters()):
        expected.state[new] = {
            key: torch.empty_like(new).copy_(value) if value.shape == new.shape else value.clone()
            for key, value in optimizer.state[old].items()
        }
    for seed in (3, 4):
        step(other, moved, seed)
        step(by_hand, expected, seed)
        step(net, optimizer, seed)
    for one, two, original in zip(other.parameters(), by_hand.parameters(), net.parameters()):
        assert torch.equal(one, two)
        torch.testing.assert_close(one, original, rtol=1e-4, atol=1e-5)
        assert all(value.stride() == one.stride() for value in moved.state[one].values() if value.shape == one.shape)


@pytest.mark.parametrize(("name", "fused"), OPTIMIZERS, ids=str)
def test_an_ordinary_state_goes_on_to_the_bit_and_unused_parameters_stay_so(name: str, fused: bool) -> None:
    net, optimizer, state = trained(name, fused, is_last=name != "Muon")
    other, resumed = make(name, fused, is_last=name != "Muon")
    other.load_state_dict(net.state_dict())
    load_part(resumed, state, "FILE")
    step(net, optimizer, 3)
    step(other, resumed, 3)
    assert all(torch.equal(one, two) for one, two in zip(net.parameters(), other.parameters()))
    if name != "Adagrad":  # which has states from the start
        del state["state"][0]
        load_part(resumed, state, "FILE")
        assert next(iter(other.parameters())) not in resumed.state


def test_optimizers_that_are_not_torchs_still_resume() -> None:
    class Slow(torch.optim.Optimizer):
        """One whose state grows, and which cannot be made from what it keeps."""

        def __init__(self, params: Any, helper: object) -> None:
            super().__init__(params, {"lr": 0.1})

    parameter = nn.Parameter(torch.zeros(2, 3))
    first, second = Slow([parameter], object()), Slow([parameter], object())
    first.state[parameter] = {"history": [torch.ones(5)], "flat": torch.ones(6), "wide": torch.ones(3, 2).t()}
    first.param_groups[0]["seen"] = 3
    load_part(second, first.state_dict(), "FILE")
    assert second.state[parameter]["history"][0].tolist() == [1] * 5
    assert second.state[parameter]["wide"].stride() == parameter.stride()
    assert second.param_groups[0]["seen"] == 3
    lbfgs = torch.optim.LBFGS([parameter])
    lbfgs.step(lambda: parameter.square().sum())
    load_part(torch.optim.LBFGS([parameter]), lbfgs.state_dict(), "FILE")


SCHEDULERS: dict[str, dict[str, Any]] = {
    "CosineAnnealingWarmRestarts": {"T_0": 2},
    "OneCycleLR": {"max_lr": 0.1, "total_steps": 10},
    "CyclicLR": {"base_lr": 0.1, "max_lr": 0.2},
    "MultiStepLR": {"milestones": [2, 4]},
    "ReduceLROnPlateau": {},
    "ExponentialLR": {"gamma": 0.9},
}
ODD = {"NaN": math.nan, "infinite": math.inf, "huge": 10**400, "text": "x", "none": None, "true": True, "list": [[]]}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_takes_no_odd_number(name: str, odd: str) -> None:
    def fresh() -> Any:
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(2))], lr=0.1, momentum=0.9)
        return getattr(lr_scheduler, name)(optimizer, **SCHEDULERS[name])

    state = fresh().state_dict()
    load_part(fresh(), copy.deepcopy(state), "FILE")
    numbers = [key for key, value in state.items() if type(value) in (int, float) and key != "best"]
    lists = [key for key, value in state.items() if isinstance(value, list) and value]
    for key in numbers + lists:
        wrong = copy.deepcopy(state)
        wrong[key] = [ODD[odd], *state[key][1:]] if key in lists else ODD[odd]
        if math.isinf(state[key]) if key in numbers else False:
            continue
        with pytest.raises(CheckpointError, match="does not fit"):
            load_part(fresh(), wrong, "FILE")


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("CosineAnnealingWarmRestarts", "T_i", 0),
        ("OneCycleLR", "last_epoch", 99),
        ("OneCycleLR", "base_lrs", []),
        ("MultiStepLR", "milestones", {2: "x", 4: 1}),
        ("ExponentialLR", "last_epoch", -5),
    ],
)
def test_a_scheduler_that_would_fail_is_refused(name: str, key: str, value: Any) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(2))], lr=0.1)
    scheduler = getattr(lr_scheduler, name)(
        optimizer, **SCHEDULERS[name] | ({"cycle_momentum": False} if name == "OneCycleLR" else {})
    )
    with pytest.raises(CheckpointError, match="does not fit"):
        load_part(scheduler, scheduler.state_dict() | {key: value}, "FILE")


@pytest.mark.parametrize("change", [{"best": math.nan}, {"best_epoch": 1.5}, {"num_bad_epochs": -1}, {"best": "x"}])
def test_a_monitor_takes_only_what_it_can_have(change: dict[str, Any]) -> None:
    monitor = Monitor("min val_loss", 5)
    with pytest.raises(CheckpointError, match="does not fit"):
        load_part(monitor, monitor.state_dict() | change, "FILE")


def test_a_metrics_accumulator_takes_only_tensors_of_its_kind() -> None:
    tracker = MetricTracker("loss")
    for wrong in (
        torch.zeros((), dtype=torch.int8),
        torch.zeros(2, 2),
        5,
        None,
        torch.zeros(2, dtype=torch.complex64),
    ):
        state = copy.deepcopy(tracker.state_dict())
        state["totals"]["loss"] = wrong
        with pytest.raises(CheckpointError, match="does not fit"):
            load_part(tracker, state, "FILE")


@pytest.mark.parametrize(
    "change",
    [
        {"numpy": ("MT19937", [0] * 624, 10**9, 0, 0.0)},  # NumPy would read memory there
        {"numpy": ("MT19937", [0] * 624, -1, 0, 0.0)},
        {"numpy": ("MT19937", [0.5] * 624, 3, 0, 0.0)},
        {"numpy": ("MT19937", [0] * 10, 3, 0, 0.0)},
        {"python": (3, (1,) * 625, "next")},
        {"torch": torch.zeros(5, dtype=torch.uint8)},
    ],
    ids=["beyond", "before", "fractions", "short", "a text", "torch"],
)
def test_a_random_state_that_is_none_is_refused(change: dict[str, Any]) -> None:
    state = rng_state(CPU)
    with pytest.raises((ValueError, TypeError, RuntimeError, LookupError)):
        set_rng_state(state | change, CPU)
    set_rng_state(state, CPU)
    assert 0 <= np.random.rand() < 1


@pytest.mark.parametrize("facts", [None, 5, [], {"classes": "x"}, {"classes": None}, {"classes": torch.zeros(3)}])
def test_facts_of_another_kind_are_refused(facts: Any) -> None:
    with pytest.raises(CheckpointError, match="facts"):
        saved_facts({"facts": facts}, {"classes": 3})
    assert saved_facts({"facts": {"classes": 5}}, {"classes": 3}) == {"classes": 5}


@pytest.mark.parametrize("text", ["\x1b[2J", "\x07", "\x9b31m", "\u202e", "\r", "a\x00b", "\ud800"])
def test_control_characters_are_not_printed(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert printable(f"ü {text} é").isprintable()
    with pytest.raises(SystemExit) as caught, exit_on_user_error():
        raise CheckpointError(f"first {text}\n  second")
    assert caught.value.code == 4
    printed = capsys.readouterr().err
    assert text not in printed
    assert printed.count("\n") == 2
    net = nn.Linear(1, 1)
    with pytest.raises(CheckpointError) as refused:
        load_part(net, net.state_dict() | {f"{text}\n": torch.zeros(1)}, "FILE")
    assert str(refused.value).isprintable()
