"""Freezing parts of a model: their weights and BatchNorm statistics stay, for the whole run or until an epoch."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import SGD, Optimizer

from parse_config.options import FineTuneOptions
from utils.errors import ConfigError, nearest
from utils.nested import by_name

WHERE = "fine_tune"

Cells = tuple[str, str, str, str]


class Freezing:
    """Which weights of a model are trained in which epoch.

    A frozen weight requires no gradient and is in no group of an optimizer; but the groups themselves stay, if need be
    empty, so that a schedule has as many values in every epoch. Without options it changes nothing.
    """

    def __init__(self, model: nn.Module, optimizer: Any, options: FineTuneOptions) -> None:
        """Freeze what is frozen in the first epoch. `optimizer` is one or a dict of them.

        Raises ConfigError for a pattern that matches nothing, and where nothing is left to train.
        """
        self.model = model
        self._optimizers: list[Optimizer] = list(by_name(optimizer).values())
        self.groups = [[list(group["params"]) for group in one.param_groups] for one in self._optimizers]
        self.parameters: list[nn.Parameter] = [weight for one in self.groups for group in one for weight in group]
        """What the optimizers train, now or later."""
        self._states: dict[nn.Parameter, Any] = {}  # of frozen weights: Adagrad makes one at once
        self.first_epochs = _first_epochs(model, options)  # of frozen weights; None: never
        self._by_name = dict(model.named_parameters())
        self.begin(1)

    def begin(self, epoch: int) -> list[nn.Parameter]:
        """Freeze and train what `epoch` asks for; return the weights that were frozen before and are no more."""
        if not self.first_epochs:
            return []
        frozen = {self._by_name[name] for name, first in self.first_epochs.items() if first is None or epoch < first}
        thawed = [weight for weight in self.parameters if not (weight.requires_grad or weight in frozen)]
        for weight in self._by_name.values():
            if weight in frozen:
                weight.requires_grad_(False)
                weight.grad = None
        for weight in thawed:
            weight.requires_grad_(True)
        self._divide_groups(frozen)
        self._hold_norms(frozen)
        return thawed

    def _divide_groups(self, frozen: set[nn.Parameter]) -> None:
        """Take frozen weights, and their state, out of the optimizers' groups, and put others back in their order."""
        if frozen.issuperset(self.parameters):
            raise ConfigError(f"{WHERE}.freeze: nothing is left to train")
        for optimizer, groups in zip(self._optimizers, self.groups):
            self._states |= {weight: optimizer.state.pop(weight) for weight in frozen & optimizer.state.keys()}
            for group, weights in zip(optimizer.param_groups, groups):
                group["params"][:] = [weight for weight in weights if weight not in frozen]
                known = self._states.keys() & set(group["params"])
                optimizer.state.update({weight: self._states.pop(weight) for weight in known})
                _start_momentum(optimizer, group)

    def _hold_norms(self, frozen: set[nn.Parameter]) -> None:
        """Let BatchNorm of frozen parts stay in eval mode, whatever mode the model is put into."""
        for name, module in self.model.named_modules():
            if isinstance(module, _NormBase):
                weights = list(module.parameters(recurse=False)) or _beside(self.model, name)
                if weights and frozen.issuperset(weights):
                    module.eval()
                    vars(module)["train"] = partial(_stay_in_eval, module)
                else:
                    vars(module).pop("train", None)


def _stay_in_eval(module: nn.Module, mode: bool = True) -> nn.Module:
    return nn.Module.train(module, False)


def _start_momentum(optimizer: Optimizer, group: dict[str, Any]) -> None:
    """Give a momentum of 0 to what joins a group of a fused SGD, which takes that of all of its weights or of none."""
    if isinstance(optimizer, SGD) and group["fused"] and group["momentum"]:
        is_new = ["momentum_buffer" not in optimizer.state.get(weight, {}) for weight in group["params"]]
        for weight in (weight for weight, new in zip(group["params"], is_new) if new and not all(is_new)):
            optimizer.state[weight]["momentum_buffer"] = torch.zeros_like(weight)


def _beside(model: nn.Module, name: str) -> list[nn.Parameter]:
    """Return the weights that stand beside a norm that has none of its own."""
    return list(model.get_submodule(name.rpartition(".")[0]).parameters())


def _first_epochs(model: nn.Module, options: FineTuneOptions) -> dict[str, int | None]:
    """Return the frozen weights by name, with the first epoch that trains them, None where none does."""
    names = [name for name, weight in model.named_parameters() if weight.requires_grad]
    epochs: dict[str, int | None] = dict.fromkeys(matching(names, options.freeze, f"{WHERE}.freeze"))
    for key, patterns in sorted(options.unfreeze_at.items(), key=lambda item: int(item[0])):
        where = f"{WHERE}.unfreeze_at.{key}"
        if int(key) < 2:
            raise ConfigError(f"{where}: give an epoch from 2 on, and take what is trained in the first out of freeze")
        frozen = [name for name, first in epochs.items() if first is None]
        epochs |= dict.fromkeys(matching(frozen, patterns, where, "frozen weight"), int(key))
    return epochs


def matching(names: Iterable[str], patterns: Iterable[str], where: str, what: str = "weight") -> list[str]:
    """Return those of `names` that fit one of `patterns`, in their order. Raises ConfigError, at `where`.

    A pattern is a shell's: `*` stands for anything, dots too, `[12]` for one of these.
    """
    names = list(names)
    fitting: set[str] = set()
    for pattern in patterns:
        found = fnmatch.filter(names, pattern)
        if not found:
            parts = {name.rsplit(".", depth)[0] + ".*" for name in names for depth in range(1, name.count(".") + 1)}
            raise ConfigError(f"{where}: no {what} matches {pattern!r}; {nearest(pattern, [*parts, *names])}")
        fitting.update(found)
    return [name for name in names if name in fitting]


def describe_groups(optimizer: Any, model: nn.Module, freezing: Freezing) -> list[str]:
    """Return a table of what trains, from when, and how, group by group; [] where all weights are trained alike."""
    tagged = [
        (f"{name}/{index}".lstrip("/"), group)
        for name, one in by_name(optimizer).items()
        for index, group in enumerate(one.param_groups)
    ]
    if len(tagged) < 2 and not freezing.first_epochs:
        return []
    names = {weight: name for name, weight in model.named_parameters()}
    rows = [("group", "trained", "parameters", "lr", "weight decay", "weights")]
    for (tag, group), weights in zip(tagged, chain.from_iterable(freezing.groups)):
        decay = f"{group['weight_decay']:g}" if "weight_decay" in group else ""
        by_epoch: dict[int | None, list[nn.Parameter]] = {}
        for weight in weights:
            by_epoch.setdefault(freezing.first_epochs.get(names.get(weight, ""), 1), []).append(weight)
        for epoch, own in by_epoch.items():
            when = "frozen" if epoch is None else "" if epoch == 1 else f"from epoch {epoch}"
            how = ("", "") if epoch is None else (f"{float(group['lr']):.4g}", decay)
            rows.append((tag, when, *_described(own, how, names)))
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def _described(weights: list[nn.Parameter], how: tuple[str, str], names: dict[nn.Parameter, str]) -> Cells:
    """Return the size of `weights`, how they are trained, their number, and the first and the last of them."""
    ends = dict.fromkeys(names.get(weight, "of another model") for weight in (weights[0], weights[-1]))
    size = sum(weight.numel() for weight in weights)
    return f"{size:,}", *how, f"{len(weights)}: {' … '.join(ends)}"
