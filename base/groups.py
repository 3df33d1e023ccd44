"""Which weights an optimizer has, of several each; and groups by one word: `no_decay`, `layer_decay`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer

from base.freezing import matching
from utils.errors import ConfigError
from utils.nested import Models, by_name


def optimizers_of(trainer: object) -> list[Optimizer]:
    """Return the optimizers that `trainer` holds, those in dicts too; each once."""
    held = [one for value in vars(trainer).values() for one in by_name(value).values()]
    return list(dict.fromkeys(one for one in held if isinstance(one, Optimizer)))


def named_groups(optimizer: Any) -> dict[str, dict[str, Any]]:
    """Return the groups of an optimizer as "group0" and so on, of several by name as "generator/group0"."""
    named = [(name, enumerate(one.param_groups)) for name, one in by_name(optimizer).items()]
    return {f"{name}/group{index}".lstrip("/"): group for name, groups in named for index, group in groups}


def weights_of_each(model: nn.Module, several: Mapping[str, Any]) -> dict[str, dict[str, nn.Parameter]]:
    """Return the weights, by their names, that each of `several` optimizers trains, sections of a config by name.

    They are those that its `params` match, or else those of the model of its name. Raises ConfigError where a pattern
    matches none, and unless each weight is one optimizer's.
    """
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    owners: dict[str, str] = {}
    for key, section in several.items():
        patterns, where = section.get("params") or f"{key}.*", f"optimizer.{key}.params"
        names = matching(weights, [patterns] if isinstance(patterns, str) else patterns, where)
        for name in (name for name in names if name in owners):
            raise ConfigError(f"{where}: {name} is a weight of optimizer.{owners[name]} already")
        owners |= dict.fromkeys(names, key)
    if missing := [name for name in weights if name not in owners]:
        raise ConfigError(
            f"optimizer: none trains {missing[0]} ({len(missing)} such); let the params of one match them"
        )
    return {key: {name: weights[name] for name, owner in owners.items() if owner == key} for key in several}


def divided(model: nn.Module, groups: list[Any], section: Mapping[str, Any], where: str = "optimizer") -> list[Any]:
    """Return `groups`, of weights or of torch's groups of them, divided as `section`, the optimizer's, says.

    `no_decay`: biases, norms and other vectors are groups without weight decay. `layer_decay`: a layer has its share of
    the learning rate of the layer after it, the last one the whole; Clark et al. 2020, "ELECTRA", and Bao et al. 2021,
    "BEiT". Raises ConfigError where there is no learning rate to take a share of.
    """
    no_decay, layer_decay = section.get("no_decay"), section.get("layer_decay")
    if not no_decay and layer_decay is None:
        return groups
    lr = section.get("args", {}).get("lr")
    if layer_decay is not None and isinstance(model, Models):
        raise ConfigError(
            f"{where}.layer_decay: needs layers of one model; without params an optimizer has the model of its name"
        )
    if layer_decay is not None and lr is None:
        raise ConfigError(f"{where}.args.lr: missing; {where}.layer_decay takes shares of it")
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
