"""Parameter groups by one word: no weight decay of vectors, and a learning rate that falls towards the first layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from utils.errors import ConfigError


def divided(model: nn.Module, groups: list[Any], section: Mapping[str, Any]) -> list[Any]:
    """Return `groups`, of weights or of torch's groups of them, divided as `section`, the optimizer's, says.

    `no_decay`: biases, norms and other vectors are groups without weight decay. `layer_decay`: a layer has its share of
    the learning rate of the layer after it, the last one the whole; Clark et al. 2020, "ELECTRA", and Bao et al. 2021,
    "BEiT". Raises ConfigError where there is no learning rate to take a share of.
    """
    no_decay, layer_decay = section.get("no_decay"), section.get("layer_decay")
    if not no_decay and layer_decay is None:
        return groups
    lr = section.get("args", {}).get("lr")
    if layer_decay is not None and lr is None:
        raise ConfigError("optimizer.args.lr: missing; optimizer.layer_decay takes shares of it")
    depths = layer_depths(model) if layer_decay is not None else {}
    last = max(depths.values(), default=0)
    result = []
    for group in _as_groups(groups):
        parts: dict[tuple[int, bool], list[nn.Parameter]] = {}
        for weight in group["params"]:
            parts.setdefault((depths.get(weight, last), bool(no_decay) and weight.ndim < 2), []).append(weight)
        for (depth, has_none), weights in sorted(parts.items(), key=lambda item: item[0]):
            options = {"lr": group.get("lr", lr) * layer_decay ** (last - depth)} if layer_decay is not None else {}
            result.append({**group, **options, **({"weight_decay": 0.0} if has_none else {}), "params": weights})
    return result


def _as_groups(groups: list[Any]) -> Iterator[dict[str, Any]]:
    """Yield groups as dicts; weights that are in none together as one."""
    loose = [group for group in groups if not isinstance(group, dict)]
    yield from [{"params": loose}] if loose else []
    yield from (group for group in groups if isinstance(group, dict))


def layer_depths(model: nn.Module) -> dict[nn.Parameter, int]:
    """Return the layer of each weight, from 0, which the inputs reach first.

    The layers are the model's children in their order; a child that has more than half of all weights, such as the
    body of a transformer, is taken apart in its turn. A norm belongs to the layer before it, and what lies beside the
    layers, such as a position embedding, to the first.
    """
    total = sum(weight.numel() for weight in model.parameters())
    layers: list[set[nn.Parameter]] = []
    for module in _layers(model, total / 2):
        weights = set(module.parameters())
        is_norm = all(weight.ndim < 2 for weight in weights)
        if layers and is_norm:
            layers[-1] |= weights
        else:
            layers.append(weights)
    depths = dict.fromkeys(model.parameters(), 0)
    for depth, weights in reversed(list(enumerate(layers))):  # a weight of two layers is the first one's
        depths |= dict.fromkeys(weights, depth)
    return depths


def _layers(module: nn.Module, limit: float) -> Iterator[nn.Module]:
    for child in module.children():
        size = sum(weight.numel() for weight in child.parameters())
        if size > limit and any(True for _ in child.children()):
            yield from _layers(child, limit)
        elif size:
            yield child
