"""Levers that make the same training faster: memory, its layout, fused optimizers, compilation, recomputing."""

from __future__ import annotations

import fnmatch
import inspect
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from utils.errors import ConfigError, nearest
from utils.nested import by_name, unnamed

KERNEL_ARGS = {"fused", "foreach", "capturable", "differentiable"}  # a config that gives one of these has chosen


def accelerate(model: nn.Module, options: Any) -> None:
    """Recompute activations in, and compile, `model` as the `trainer` section's `options` say.

    Names in the state dict stay as they are. Raises ConfigError where a pattern of `grad_checkpointing` fits nothing.
    """
    recompute_activations(model, options.grad_checkpointing)
    if options.compile is not None:
        for one in by_name(model).values():
            one.compile(**dict(options.compile))


def lay_out(
    model: nn.Module, channels_last: bool | str, device: torch.device, try_forward: Callable[[], object]
) -> bool:
    """Lay out a model that is on `device` in `channels_last`, which its convolutions are faster in; return whether.

    With "auto" it is laid out so on a CPU or CUDA where `try_forward` works: a model that calls `view` on the outputs
    of a convolution does not.
    """
    has_images = any(weight.ndim == 4 and not is_sharded(weight) for weight in model.parameters())
    is_tried = channels_last == "auto" and device.type in ("cpu", "cuda")
    if not has_images or not (channels_last is True or is_tried):
        return False
    model.to(memory_format=torch.channels_last)
    try:
        with torch.compiler.set_stance("force_eager"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try_forward() if is_tried else None
    except Exception:  # the preflight reports what is wrong in either layout
        model.to(memory_format=torch.contiguous_format)
        return False
    return True


def input_format(model: nn.Module) -> torch.memory_format:
    """Return the memory format that 4-D inputs of `model` should have: that of its convolutions."""
    weights = [weight for weight in model.parameters() if weight.ndim == 4]
    is_last = [weight.is_contiguous(memory_format=torch.channels_last) for weight in weights]
    return torch.channels_last if weights and all(is_last) else torch.contiguous_format


def recompute_activations(model: nn.Module, patterns: Iterable[str]) -> None:
    """Let submodules whose names fit a pattern, as in "layers.*", keep no activations but compute them again.

    Of a submodule and its own submodules the outermost is taken, once.

    Chen et al. 2016, "Training deep nets with sublinear memory cost": less memory for about a third more time, and the
    same gradients to the bit, dropout included. Raises ConfigError where a pattern fits no submodule.
    """
    fitting = submodules(model, patterns, "trainer.grad_checkpointing")
    for name, module in fitting.items():
        parts = name.split(".")
        if not any(".".join(parts[:depth]) in fitting for depth in range(1, len(parts))):
            module.forward = partial(_recomputed, module.forward)


def submodules(model: nn.Module, patterns: Iterable[str], where: str) -> dict[str, nn.Module]:
    """Return the submodules whose names fit one of `patterns`, by name; `where` is the config path of the patterns.

    Raises ConfigError where a pattern fits none.
    """
    modules = {name: module for name, module in model.named_modules() if name}
    fitting: dict[str, nn.Module] = {}
    for pattern in patterns:
        names = fnmatch.filter(modules, pattern)
        if not names:
            raise ConfigError(f"{where}: no submodule {pattern!r}; {nearest(pattern, modules)}")
        fitting |= {name: modules[name] for name in names}
    return fitting


def _recomputed(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return (
        checkpoint(forward, *args, use_reentrant=False, **kwargs)
        if torch.is_grad_enabled()
        else forward(*args, **kwargs)
    )


def fast_kernels(optimizer: Any, params: Any, options: Any) -> dict[str, Any]:
    """Return the arguments with which `optimizer`, a class and its arguments, updates all of `params` in one kernel.

    {} where it cannot, or its arguments already choose. `params` are parameters or groups of them; `options` is the
    `trainer` section. Of several, dicts by name, returns those of each. Raises ConfigError where a CUDA graph is asked
    for and the optimizer cannot be part of one, or where the arguments choose what does not work.
    """
    named = by_name(params)
    return unnamed(
        {
            name: _kernel_args(one, named[name], options, f"optimizer.{name}".rstrip("."))
            for name, one in by_name(optimizer).items()
        }
    )


def _kernel_args(optimizer: partial[Any], params: Iterable[Any], options: Any, where: str) -> dict[str, bool]:
    """Return the arguments of one optimizer, the one at `where` in the config."""
    is_captured, cls = options.cuda_graph, optimizer.func
    groups = [group["params"] if isinstance(group, dict) else [group] for group in params]
    named = [parameter for group in groups for parameter in group]
    params = [parameter[1] if isinstance(parameter, tuple) else parameter for parameter in named]
    # Fused SGD takes memory as it comes for its first momentum, and where the loss scaler skips that step, keeps it.
    is_unsafe = cls is torch.optim.SGD and optimizer.keywords.get("momentum") and options.precision == "fp16"
    if is_unsafe and optimizer.keywords.get("fused"):
        raise ConfigError(f"{where}.args.fused: SGD with momentum cannot be fused with trainer.precision fp16")
    names = inspect.signature(cls).parameters
    args = {"capturable": True} if is_captured and "capturable" in names else {}
    if "fused" in names and not is_unsafe and not KERNEL_ARGS & optimizer.keywords.keys():
        args |= {"fused": True} if _runs(partial(optimizer, **args, fused=True), params) else {}
    if is_captured and not {"capturable", "fused"} & {**optimizer.keywords, **args}.keys():
        raise ConfigError(f"trainer.cuda_graph: {cls.__name__} cannot be captured; Adam, AdamW and SGD can")
    return {name: value for name, value in args.items() if name not in optimizer.keywords}


def is_sharded(tensor: Tensor) -> bool:
    """Whether processes hold a part each of `tensor`: a DTensor, whose import would take a third of a second."""
    return type(tensor).__module__.startswith("torch.distributed.tensor")


def local_part(tensor: Tensor) -> Tensor:
    """Return what this process holds of a sharded `tensor`; any other as it is."""
    return tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def _runs(optimizer: partial[Any], params: Sequence[Tensor]) -> bool:
    """Whether a step on stand-ins of `params` works; torch offers no other way to ask whether a fused kernel exists."""
    kinds = {(p.device, p.dtype, is_sharded(p)): p for p in params}
    stand_ins = [
        nn.Parameter(torch.zeros_like(like) if sharded else torch.zeros(1, device=device, dtype=dtype))
        for (device, dtype, sharded), like in kinds.items()
    ]
    for stand_in in stand_ins:
        stand_in.grad = torch.zeros_like(stand_in)
    try:
        optimizer(stand_ins).step()
    except RuntimeError:
        return False
    return True


def clip_gradients(parameters: Iterable[Tensor], max_norm: float) -> Tensor:
    """Scale the gradients down to a 2-norm of `max_norm`; return the norm that they had, a scalar on the device.

    As torch's clip_grad_norm_, which goes over all gradients once more even where `max_norm` is infinite, and sorts
    them by device first.
    """
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
    if max_norm < float("inf"):
        nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    return norm.full_tensor() if is_sharded(norm) else norm
