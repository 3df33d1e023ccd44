"""The classification models of torchvision, with any number of classes and channels."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from checkpoint.foreign import as_dtypes_of, read_weights
from checkpoint.parts import load_fitting_weights
from utils import ConfigError, nearest
from utils.annotations import PositiveInt


def TorchvisionModel(
    name: str,
    weights: str | None = None,
    num_classes: PositiveInt = 10,
    in_channels: PositiveInt = 3,
    image_size: PositiveInt | None = None,
    is_new: bool = True,
) -> nn.Module:
    """Return a model from (N, in_channels, H, W) float to logits (N, num_classes).

    `name` is one of torchvision.models, such as "resnet18". `weights` is "DEFAULT", or another name of
    torchvision's weights for it, or a file. Weights that fit are loaded. The head stays new for another number of
    classes, and a first layer for other channels gets the mean over red, green and blue. `image_size` is for models
    that work at one size only (vit, maxvit). A resumed run (not `is_new`) has its weights in its checkpoint.

    Raises ConfigError, and CheckpointError where a file has no weights that fit.
    """
    net = _build(name, num_classes, image_size, takes_colours=weights is not None and in_channels == 3)
    stem_name, stem = next((key, part) for key, part in net.named_modules() if isinstance(part, nn.Conv2d))
    if in_channels != stem.in_channels:
        net.set_submodule(stem_name, _with_channels(stem, in_channels))
    if weights is not None and is_new:
        found, where = _read(name, weights)
        key = f"{stem_name}.weight"
        if isinstance(found.get(key), Tensor) and found[key].ndim == 4 and found[key].shape[1] != in_channels:
            found[key] = _spread(found[key], in_channels)
        report = load_fitting_weights(net, as_dtypes_of(net, found), where)
        logging.getLogger("model").info(report)
    return net


def _build(name: str, num_classes: int, image_size: int | None, takes_colours: bool) -> nn.Module:
    """Return a new model without auxiliary outputs. Raises ConfigError."""
    from torchvision import models  # takes a second, and other models do not need it

    names = models.list_models(module=models)
    if name not in names:
        raise ConfigError(f"arch.args.name: torchvision has no classifier {name!r}; {nearest(name, names)}")
    options: dict[str, Any] = {"num_classes": num_classes}
    if name in ("googlenet", "inception_v3"):
        # Their pretrained weights expect another standardisation.
        options |= {"aux_logits": False, "init_weights": True, "transform_input": takes_colours}
    if image_size is not None:
        options |= _size_options(name, image_size)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            net: nn.Module = models.get_model(name, weights=None, **options)
    except ValueError as error:
        raise ConfigError(f"arch.args: {name} refuses them: {error}") from None
    return net


def _size_options(name: str, image_size: int) -> dict[str, Any]:
    if name.startswith("vit_"):
        return {"image_size": image_size}
    if name.startswith("maxvit"):
        return {"input_size": (image_size, image_size)}
    raise ConfigError(f"arch.args.image_size: {name} takes images of any size; leave it out")


def _with_channels(stem: nn.Conv2d, in_channels: int) -> nn.Conv2d:
    """Return a new convolution like `stem`, of `in_channels`."""
    names = ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
    options = {name: getattr(stem, name) for name in names}
    new = nn.Conv2d(in_channels, stem.out_channels, bias=stem.bias is not None, **options)
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    return new


def _spread(weight: Tensor, in_channels: int) -> Tensor:
    """Return a kernel (O, C, h, w) for other channels, with outputs as large; for grey images they are equal."""
    return weight.mean(1, keepdim=True).repeat(1, in_channels, 1, 1) * (weight.shape[1] / in_channels)


def _read(name: str, weights: str) -> tuple[dict[str, Any], str]:
    """Return the weights of a file or of torchvision, and their source. Raises ConfigError, CheckpointError."""
    from torchvision.models import get_model_weights

    known = get_model_weights(name)
    if weights not in known.__members__:
        if not Path(weights).exists():
            raise ConfigError(
                f"arch.args.weights: no file {weights!r}, and torchvision has {', '.join(known.__members__)}"
            )
        return read_weights(Path(weights)), weights
    url = known[weights].url
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    try:
        found = known[weights].get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        reason = str(getattr(error, "reason", None) or error).splitlines()[0]
        raise ConfigError(f"arch.args.weights: cannot download {url} ({reason}); put the file at {path}") from None
    return dict(found), f"{name} {weights}"
