"""Checks whether a saved state fits a part of this run; torch checks little of it, and its kernels nothing."""

from __future__ import annotations

import inspect
import math
from functools import cache
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

MAX_FLOAT = torch.finfo(torch.float32).max
MAX_INT = 2**31 - 1
MAX_DIMS, MAX_ELEMENTS = 3, 1_000_000  # of a sum that is a scalar until its first update
EXACT_FLOATS = (torch.float32, torch.float64)


def check_like(saved: Any, own: Any, name: str, may_have_more: bool = False) -> None:
    """Raise ValueError, which names the place, unless `saved` is as `own`, the state of a part of this run.

    Dicts have the same keys, or with `may_have_more` at least those; lists the same length, and those of tensors any;
    tensors the same dtype and shape; numbers are finite, and not negative where this run's is not; texts are equal.
    """
    if isinstance(own, dict):
        has_keys = isinstance(saved, dict) and saved.keys() >= own.keys()
        if not has_keys or (saved.keys() != own.keys() and not may_have_more):
            raise ValueError(f"{name} has other keys than this run's")
        for key, value in own.items():
            check_like(saved[key], value, f"{name}.{key}", may_have_more)
    elif isinstance(own, list | tuple):
        is_list = isinstance(saved, list | tuple)
        if is_list and _are_tensors(own) and _are_tensors(saved):
            return
        if not is_list or len(saved) != len(own) or _are_tensors(own):
            raise ValueError(f"{name} is not the list that it is in this run")
        for index, (value, wanted) in enumerate(zip(saved, own)):
            # A learning rate that the config gives as an integer does not stay one.
            check_like(value, float(wanted) if type(wanted) is int else wanted, f"{name}.{index}", may_have_more)
    elif isinstance(own, Tensor):
        _check_tensor(saved, own, name)
    elif isinstance(own, int | float) and not isinstance(own, bool):
        _check_number(saved, own, name)
    elif type(saved) is not type(own) or (isinstance(own, str) and saved != own):
        raise ValueError(f"{name} is {saved!r:.40}, in this run {own!r:.40}")


def _are_tensors(values: Any) -> bool:
    return all(isinstance(value, Tensor) for value in values)


def _check_tensor(saved: Any, own: Tensor, name: str) -> None:
    if not isinstance(saved, Tensor):
        raise ValueError(f"{name} is a {type(saved).__name__}, not a tensor")
    is_grown = own.ndim == 0 and saved.ndim <= MAX_DIMS and saved.numel() <= MAX_ELEMENTS
    if saved.shape != own.shape and not is_grown:
        raise ValueError(f"{name} is {list(saved.shape)}, in this run {list(own.shape)}")
    is_old_count = (saved.dtype, own.dtype) == (torch.int64, torch.float64)  # counts were integers once
    is_like = saved.dtype == own.dtype or (saved.dtype in EXACT_FLOATS and own.dtype in EXACT_FLOATS)
    if not is_like and not is_old_count:
        raise ValueError(f"{name} is {saved.dtype}, in this run {own.dtype}")


def _check_number(saved: Any, own: float, name: str) -> None:
    if type(saved) not in (int, float) or (isinstance(own, int) and not isinstance(saved, int)):
        raise ValueError(f"{name} is {saved!r:.40}, in this run {own!r}")
    is_any_float = math.isinf(own) or name.endswith(".best")  # a value of the data, and none yet
    largest = MAX_INT if isinstance(saved, int) else math.inf if is_any_float else MAX_FLOAT
    smallest = -largest if own < 0 or is_any_float else 0
    if not smallest <= saved <= max(largest, own):  # NaN is neither
        raise ValueError(f"{name} is {saved!r:.40}")


def check_schedule(scheduler: LRScheduler) -> None:
    """Raise what `scheduler` raises at its position, such as for a period of 0 or a step after its last."""
    for inner in getattr(scheduler, "_schedulers", ()):
        check_schedule(inner)
    if not hasattr(scheduler, "_schedulers") and type(scheduler).get_lr is not LRScheduler.get_lr:
        scheduler._get_lr_called_within_step = True
        scheduler.get_lr()
        scheduler._get_lr_called_within_step = False


def fitted_state(optimizer: Optimizer, saved: dict[str, Any]) -> dict[str, Any]:
    """Return the saved state of an optimizer, each tensor laid out in memory as its parameter is.

    Fused kernels go through memory as it lies, whatever strides say. Raises ValueError, or what the optimizer raises,
    where the state is none that it could have. What is not of torch may have values and options that come with time.
    """
    groups, saved_groups, states = optimizer.state_dict()["param_groups"], saved["param_groups"], saved["state"]
    _check_options(saved_groups, groups, _is_torchs(optimizer))

    @cache
    def fresh(group: int, ndim: int, dtype: torch.dtype, device: torch.device) -> tuple[dict[str, Any], bool]:
        stand_in = torch.zeros(_sizes(ndim), dtype=dtype, device=device)
        try:
            _first_state(optimizer, stand_in, groups[group])
        except Exception:  # it needs a closure, say, or arguments that it does not keep
            return {}, False
        return _first_state(optimizer, stand_in, saved_groups[group])  # whose options it checks

    fitted: dict[int, Any] = {}
    numbers = chain.from_iterable(group["params"] for group in groups)
    for index, group in enumerate(optimizer.param_groups):
        for parameter, number in zip(group["params"], numbers):  # in this order, as `numbers` is an iterator
            wanted, has_at_once = fresh(index, parameter.ndim, parameter.dtype, parameter.device)
            if number not in states and not has_at_once:  # a parameter that has not been used yet
                continue
            values, name = states.get(number, {}), f"of parameter {number}"
            if wanted and _is_torchs(optimizer) and values.keys() != wanted.keys():
                raise ValueError(f"the state {name} has other keys than {', '.join(wanted)}")
            for key in values.keys() & wanted.keys():
                _check_value(values[key], wanted[key], parameter, f"{key} {name}", _is_torchs(optimizer))
            fitted[number] = {key: _laid_out(value, parameter) for key, value in values.items()}
    if states.keys() != fitted.keys():
        raise ValueError("it has a state of parameters that this run has not")
    return saved | {"state": fitted}


def _is_torchs(optimizer: Optimizer) -> bool:
    return type(optimizer).__module__.partition(".")[0] == "torch"


def _sizes(ndim: int) -> tuple[int, ...]:
    """Return the sizes of a stand-in, all different, so that those of its state tell which is which."""
    return tuple(range(2, 2 + ndim))


def _check_options(saved: list[dict[str, Any]], own: list[dict[str, Any]], is_torchs: bool) -> None:
    """Raise ValueError unless saved groups have the parameters of this run's, and options of the same kind."""
    if [group["params"] for group in saved] != [group["params"] for group in own]:
        raise ValueError("it is of other parameters")
    for index, (group, wanted) in enumerate(zip(saved, own)):
        wanted = {key: float(value) if type(value) is int else value for key, value in wanted.items()}
        for flag in (key for key, value in wanted.items() if isinstance(value, bool) and is_torchs):
            if group[flag] is not wanted[flag]:
                raise ValueError(f"{flag} is {group[flag]!r:.40}, in this run {wanted[flag]}")
        del wanted["params"]
        options = {key: value for key, value in group.items() if key != "params"}
        check_like(options, wanted, f"group {index}", may_have_more=not is_torchs)


def _first_state(optimizer: Optimizer, stand_in: Tensor, group: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Return the state that one step gives a parameter, and whether it has one before; torch offers no other way."""
    parameter = nn.Parameter(stand_in)
    parameter.grad = torch.zeros_like(parameter)
    names = inspect.signature(type(optimizer)).parameters.keys() - {"params"}
    twin = type(optimizer)([parameter], **{key: value for key, value in group.items() if key in names})
    has_at_once = bool(twin.state)
    twin.step()
    return dict(twin.state[parameter]), has_at_once


def _check_value(value: Any, wanted: Any, parameter: Tensor, name: str, is_torchs: bool) -> None:
    """Raise ValueError unless `value` is to `parameter` what `wanted` is to its stand-in."""
    if not isinstance(wanted, Tensor) or not (is_torchs or wanted.shape == _sizes(parameter.ndim)):
        return
    sizes = {1: 1, **dict(enumerate(parameter.shape, start=2))}
    shape = [sizes[size] for size in wanted.shape]
    if not isinstance(value, Tensor) or (list(value.shape), value.dtype) != (shape, wanted.dtype):
        found = f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else f"{value!r:.40}"
        raise ValueError(f"{name} is {found}, not {wanted.dtype} {shape}")
    if value.ndim == 0 < parameter.ndim and not 0 <= value.item() < math.inf:  # a count of steps, or such
        raise ValueError(f"{name} is {value.item()}")


def _laid_out(value: Any, parameter: Tensor) -> Any:
    if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
        return torch.empty_like(parameter, dtype=value.dtype).copy_(value)
    return value
