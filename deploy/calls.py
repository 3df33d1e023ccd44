"""How a run calls its model: the arguments of real batches, at any batch size, and what stays the same in all."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim

from utils.errors import ExportError
from utils.nested import map_tensors, tensors_of


class Call(NamedTuple):
    """The arguments of a model, and what it returned: nests of tensors and constants."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: Any

    def tensors(self) -> list[Tensor]:
        """The tensors of the arguments, in the order in which torch.export flattens them."""
        return list(tensors_of((self.args, self.kwargs)))

    def output_tensors(self) -> list[Tensor]:
        """The tensors of what the model returned."""
        return list(tensors_of(self.outputs))


def calls_of(model: nn.Module, run: Callable[[Any], object], batches: Iterable[Any]) -> Iterator[Call]:
    """Yield how `model` is called when `run` gets each batch, which may make of it what it wants."""
    calls: list[Call] = []

    def record(_: nn.Module, args: Any, kwargs: Any, outputs: Any) -> None:
        calls.append(Call(args, kwargs, outputs))

    for batch in batches:
        calls.clear()
        with model.register_forward_hook(record, with_kwargs=True), torch.no_grad():
            run(batch)
        if not calls:
            raise ExportError("run_batch of trainer/batch.py does not call the model itself; nothing to export")
        yield from calls


class Flat(nn.Module):
    """A model that takes the tensors of its arguments one by one, since a file has no classes of a project in it."""

    def __init__(self, model: nn.Module, call: Call) -> None:
        super().__init__()
        self.model = model
        self.nest = map_tensors(lambda _: torch.empty(0), (call.args, call.kwargs))

    def forward(self, *tensors: Tensor) -> Any:
        """Call the model with `tensors` in their places."""
        rest = iter(tensors)
        args, kwargs = map_tensors(lambda _: next(rest), self.nest)
        return self.model(*args, **kwargs)


def flattened(model: nn.Module, calls: Sequence[Call]) -> tuple[nn.Module, list[Call]]:
    """Return a model and its calls, with tensors alone as arguments, in their order."""
    if all(not call.kwargs and all(isinstance(arg, Tensor) for arg in call.args) for call in calls):
        return model, list(calls)
    return Flat(model, calls[0]).eval(), [Call(tuple(call.tensors()), {}, call.outputs) for call in calls]


def batched(calls: Sequence[Call]) -> list[bool]:
    """Return for each tensor of the arguments whether it has a row for each sample, as the first one has."""
    columns = zip(*([tensor.shape[:1] for tensor in call.tensors()] for call in calls))
    first, *others = list(columns)
    return [True, *(column == first for column in others)]


def resized_call(model: nn.Module, calls: Sequence[Call], size: int) -> Call:
    """Return a call with `size` samples of `calls`, repeated where there are too few."""
    columns = zip(*(call.tensors() for call in calls))
    resized = []
    for is_batched, column in zip(batched(calls), columns):
        fitting = [tensor for tensor in column if tensor.shape[1:] == column[0].shape[1:]]
        rows = torch.cat(fitting) if is_batched else column[0]
        resized.append(rows[torch.arange(size) % len(rows)] if is_batched else rows)
    rest = iter(resized)
    args, kwargs = map_tensors(lambda _: next(rest), (calls[0].args, calls[0].kwargs))
    with torch.no_grad():
        return Call(args, kwargs, model(*args, **kwargs))


def argument_names(model: nn.Module, call: Call) -> list[str]:
    """Return a name for each tensor of the arguments: that of the argument, with a number where it has several."""
    names = []
    for name, value in inspect.signature(model.forward).bind(*call.args, **call.kwargs).arguments.items():
        num = len(list(tensors_of(value)))
        names += [name] if num == 1 else [f"{name}_{i}" for i in range(num)]
    return names


class _Name(str):
    """A name that is written without quotes."""

    __slots__ = ()
    __repr__ = str.__str__


def call_text(model: nn.Module, call: Call) -> tuple[str, list[str]]:
    """Return the arguments of a call in Python, tensors by their names, and the imports of its namedtuples."""
    names = iter(argument_names(model, call))
    args, kwargs = map_tensors(lambda _: _Name(next(names)), (call.args, call.kwargs))
    imports: dict[str, None] = {}

    def look(value: Any) -> None:
        if hasattr(value, "_fields"):
            imports[f"from {type(value).__module__} import {type(value).__name__}"] = None
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
            look(item)

    look((args, kwargs))
    return ", ".join([*map(repr, args), *(f"{key}={value!r}" for key, value in kwargs.items())]), list(imports)


def output_names(call: Call) -> list[str]:
    """Return a name for each tensor that the model returns."""
    num = len(call.output_tensors())
    return ["outputs"] if num == 1 else [f"outputs_{i}" for i in range(num)]


def described_tensors(model: nn.Module, calls: Sequence[Call]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return names, dtypes and shapes of the tensors that `model` takes in `calls`, and of those that it returns."""
    first = calls[0]
    size = len(first.tensors()[0])
    inputs = zip(argument_names(model, first), first.tensors(), batched(calls))
    outputs = zip(output_names(first), first.output_tensors())
    return (
        [_described(name, tensor, is_batched) for name, tensor, is_batched in inputs],
        [_described(name, tensor, tensor.shape[:1] == (size,)) for name, tensor in outputs],
    )


def _described(name: str, tensor: Tensor, is_batched: bool) -> dict[str, Any]:
    shape: list[Any] = list(tensor.shape)
    dtype = str(tensor.dtype).removeprefix("torch.")
    return {"name": name, "dtype": dtype, "shape": ["batch", *shape[1:]] if is_batched else shape}


def dynamic_shapes(model: nn.Module, calls: Sequence[Call]) -> dict[str, Any]:
    """Return torch.export's dynamic_shapes: the batch, and each dimension that differs between the calls."""
    batch, first = Dim("batch"), calls[0]
    shapes = zip(*([tensor.shape for tensor in call.tensors()] for call in calls))
    specs = []
    for is_batched, column in zip(batched(calls), shapes):
        varies = [i for i in range(len(column[0])) if any(shape[i] != column[0][i] for shape in column)]
        specs.append(dict.fromkeys(varies, Dim.AUTO) | ({0: batch} if is_batched else {}))
    rest = iter(specs)
    arguments = inspect.signature(model.forward).bind(*first.args, **first.kwargs).arguments
    found = {}
    for name, value in arguments.items():
        found[name] = map_tensors(lambda _: next(rest), value) if next(tensors_of(value), None) is not None else None
    return found
