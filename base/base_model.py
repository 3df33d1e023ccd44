"""The model that yours subclasses, and what is done to any model before it is trained."""

from __future__ import annotations

import fnmatch
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from base.groups import divided, weights_of_each
from checkpoint.file import load_checkpoint
from checkpoint.foreign import as_dtypes_of, read_weights
from checkpoint.parts import eval_weights, load_fitting_weights
from distributed import world_size
from distributed.fsdp import shard
from parse_config import ConfigParser
from parse_config.groups import MATCH, options_of
from parse_config.named import subsections
from speed import accelerate
from utils.errors import ConfigError, nearest
from utils.nested import Models, by_name
from utils.weights import load_weights


class BaseModel(nn.Module, ABC):
    """An nn.Module that can learn the scale of its data and prints its size."""

    @abstractmethod
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the outputs that the criterion and the metrics take."""

    def adapt(self, data_loader: Any) -> None:
        """Take what the model must know of the training split, such as the features' means, into buffers.

        Called once for a new model, before the first step. Buffers are part of the state dict, so a checkpoint takes
        raw data whatever loaded it. Raises ConfigError where data and model do not fit. Does nothing by default.
        """

    def param_groups(self) -> list[Any]:
        """Return what the optimizer trains: parameters, or torch's groups of them with options of their own."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def sample_images(self) -> torch.Tensor | None:
        """Return images (N, C, H, W) that the model makes by itself, as of a fixed noise; None by default.

        TensorBoard shows them, of the average where there is one, in the epochs that `trainer.log_figures` says; of
        several processes none. Called in eval mode, without gradients; the random state is put back.
        """
        return None

    def num_parameters(self) -> int:
        """Number of trainable parameters."""
        return sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)

    def __str__(self) -> str:
        return f"{super().__str__()}\nTrainable parameters: {self.num_parameters():,}"


def param_groups(model: nn.Module, section: Mapping[str, Any] | None = None) -> Any:
    """Return what an optimizer of `model` trains: what a BaseModel says, or every parameter that requires gradients.

    Where `section`, the config's of the optimizer, has groups by pattern, these are it instead; it also says whether
    they are divided further, by `no_decay` and `layer_decay`. Of several optimizers, returns the groups of each by its
    name. Raises ConfigError.
    """
    several = subsections(section)
    if not several or "" in several:
        if section and section.get("params"):
            raise ConfigError("optimizer.params: is for several; what one does not train, fine_tune.freeze says")
        weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        return _groups_of(model, weights, section or {}, "optimizer")
    groups = {}
    for name, weights in weights_of_each(model, several).items():
        own = model if several[name].get("params") else model.get_submodule(name)
        groups[name] = _groups_of(own, weights, several[name], f"optimizer.{name}")
    return groups


def _groups_of(model: nn.Module, weights: dict[str, nn.Parameter], section: Mapping[str, Any], where: str) -> list[Any]:
    """Return the groups of the optimizer at `where` in the config, which trains `weights`, some or all of `model`."""
    groups: list[Any] = list(weights.values())
    if by_pattern := section.get("args", {}).get("params"):
        groups = _groups_by_pattern(weights, by_pattern, f"{where}.args.params")
    elif isinstance(model, BaseModel) and len(groups) == sum(weight.requires_grad for weight in model.parameters()):
        groups = model.param_groups()
    # Lists, as the groups are gone through more than once, and `parameters()` can be only once.
    for group in (group for group in groups if isinstance(group, dict)):
        params = group["params"]
        group["params"] = [params] if isinstance(params, torch.Tensor) else list(params)
    return divided(model, groups, section, where)


def _groups_by_pattern(
    weights: Mapping[str, nn.Parameter], groups: Sequence[dict[str, Any]], where: str
) -> list[dict[str, Any]]:
    """Return a group for each pattern, of the `weights` by name that none before it has; and last one of the rest.

    Raises ConfigError, at `where`, for a pattern that matches none.
    """
    rest, built = dict(weights), []
    for index, group in enumerate(groups):
        pattern = group[MATCH]
        names = fnmatch.filter(rest, pattern)
        if not names:
            is_taken = bool(fnmatch.filter(weights, pattern))
            reason = "earlier groups have all that it matches" if is_taken else nearest(pattern, weights)
            raise ConfigError(f"{where}[{index}].{MATCH}: {pattern!r} matches no trainable parameter; {reason}")
        built.append({"params": [rest.pop(name) for name in names], **options_of(group)})
    return [*built, {"params": list(rest.values())}] if rest else built


def prepare_model(
    model: nn.Module, data_loader: DataLoader[Any], config: ConfigParser, device: torch.device
) -> nn.Module:
    """Adapt a new model to its data, give it the weights that the run begins with, and put it on the device.

    Raises ConfigError, and CheckpointError where the weights do not fit.
    """
    if isinstance(model, Models) and (world_size() > 1 or config.section("trainer").virtual_ranks is not None):
        names = ", ".join(model)
        raise ConfigError(f"arch: several models ({names}) train in one process, without torchrun and virtual_ranks")
    for one in by_name(model).values():
        if isinstance(one, BaseModel) and not config.resume:
            one.adapt(data_loader)
    config.has_taken_weights = False  # the model of a search for a batch size has
    take_weights(model, config)
    model = model.to(device)
    accelerate(model, config.section("trainer"))
    shard(model, config.section("trainer"))
    return model


def take_weights(model: nn.Module, config: ConfigParser) -> None:
    """Load the weights that a new run begins with, once: of fine_tune.pretrained, and those that -c and -r name.

    Raises CheckpointError.
    """
    if config.resume or config.has_taken_weights:
        return
    config.has_taken_weights = True
    if pretrained := config.section("fine_tune").pretrained:
        weights = as_dtypes_of(model, read_weights(Path(pretrained)))
        config.get_logger("train").info(load_fitting_weights(model, weights, pretrained))
    if config.init_from:
        weights, where = eval_weights(load_checkpoint(config.init_from)), str(config.init_from)
        if config.section("trainer").init_weights == "fitting":
            config.get_logger("train").info(load_fitting_weights(model, weights, where))
        else:
            load_weights(model, weights, where)
