"""A table of a model: layers, output shapes, parameters, FLOPs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from utils.nested import describe

MAX_DEPTH = 3  # below the model, and less where that is more than MAX_ROWS; what is deeper is counted, not shown
MAX_ROWS = 50


class Layer(NamedTuple):
    """A row of the table, and what is in it."""

    name: str
    kind: str
    shape: str  # of what it gives for a batch
    parameters: int
    flops: int
    inside: tuple[Layer, ...]  # alike neighbours, such as the blocks of a transformer, are one row


def summarize(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[str]:
    """Return the table of `model`, as it computes these arguments in eval mode, in lines; leaves it in training mode.

    FLOPs are those of matrix products, convolutions and attention in one forward pass, two for a multiply-add.
    """
    shapes: dict[nn.Module, str] = {}

    def keep(module: nn.Module, args: Any, output: Any) -> None:
        shapes.setdefault(module, describe(output))

    has_fast_path = torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as stack:
        for module in model.modules():
            stack.enter_context(module.register_forward_hook(keep))
        stack.callback(model.train)
        stack.callback(torch.backends.mha.set_fastpath_enabled, has_fast_path)
        model.eval()
        torch.backends.mha.set_fastpath_enabled(False)  # one operation of it is a whole layer; torch does not count it
        counter = stack.enter_context(FlopCounterMode(display=False))
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            model(*args, **kwargs)
    by_name = {name: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
    whole = _layer(type(model).__name__, model, type(model).__name__, shapes, by_name)
    for depth in range(MAX_DEPTH, 0, -1):
        rows = [("model", whole), *_rows(whole, depth)]
        if len(rows) <= MAX_ROWS:
            break
    return _table(rows)


def _layer(name: str, module: nn.Module, path: str, shapes: dict[nn.Module, str], flops: dict[str, int]) -> Layer:
    """Return what `module`, which torch's counter calls `path`, is and has in it."""
    children = module.named_children()
    inside = tuple(_layer(inner, child, f"{path}.{inner}", shapes, flops) for inner, child in children)
    parameters = sum(parameter.numel() for parameter in module.parameters())
    return Layer(name, type(module).__name__, shapes.get(module, ""), parameters, flops.get(path, 0), inside)


def _rows(layer: Layer, depth: int, indent: str = "  ") -> Iterator[tuple[str, Layer]]:
    """Yield (name, layer) of what is in `layer`; of alike neighbours the first alone, with their number."""
    for _, group in groupby(layer.inside, key=_without_names):
        alike = list(group)
        first, count = alike[0], len(alike)
        name = f"{first.name}-{alike[-1].name} ({count}x)" if count > 1 else first.name
        total = first._replace(parameters=count * first.parameters, flops=sum(one.flops for one in alike))
        yield indent + name, total
        if depth > 1:
            yield from _rows(first, depth - 1, indent + "  ")


def _without_names(layer: Layer) -> Layer:
    """Return the layer as it compares with its neighbours: equal where it computes the same."""
    return layer._replace(name="", inside=tuple(_without_names(inner) for inner in layer.inside))


def _table(rows: list[tuple[str, Layer]]) -> list[str]:
    """Return the rows in columns that line up, at most MAX_ROWS of them."""
    cells = [("layer", "type", "output", "parameters", "FLOPs")]
    for name, layer in rows[:MAX_ROWS]:
        flops = _count(layer.flops) if layer.flops else ""
        cells.append((name, layer.kind, layer.shape, f"{layer.parameters:,}", flops))
    widths = [max(map(len, column)) for column in zip(*cells)]
    aligns = "<<<>>"
    lines = ["  ".join(map("{:{}{}}".format, row, aligns, widths)).rstrip() for row in cells]
    return [*lines, f"… and {len(rows) - MAX_ROWS} more layers"] if len(rows) > MAX_ROWS else lines


def _count(number: int) -> str:
    """Return a large number in short, such as "1.2 G"."""
    for power, letter in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if number >= 10**power:
            return f"{number / 10**power:.3g} {letter}"
    return str(number)
