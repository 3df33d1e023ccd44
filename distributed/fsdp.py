"""Fully sharded data parallel training, torch's FSDP2: each process holds a part of every weight, and of its state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from distributed.data_parallel import Averaging
from distributed.launch import is_main, world_size
from distributed.strategy import Pair, Weight
from speed import is_sharded, submodules
from utils.errors import ConfigError
from utils.nested import map_tensors
from utils.position import Position

# Of what torch has: these fail on DTensors, need a closure or sparse gradients, or (Muon) make other updates on them.
REFUSED = (torch.optim.Adafactor, torch.optim.LBFGS, torch.optim.Muon, torch.optim.SparseAdam)
UNFUSED = (torch.optim.SGD, torch.optim.Adagrad)
TWIN = "_ema_twin"  # in the model's __dict__, where it is no submodule


class Fsdp(Averaging):
    """torch's fully_shard: weights are gathered block by block where they are used, and then freed.

    Zhao et al. 2023, "PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel". The model must use the same
    blocks in every process: with a depth that depends on the data, gathers of different blocks would meet.
    """

    @property
    def saves_shards(self) -> bool:
        """Whether each process writes its own part of a checkpoint."""
        return bool(self.options.strategy.checkpoint == "sharded")

    def check_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """Raise ConfigError where `optimizer` does not work on parts of weights."""
        name = type(optimizer).__name__
        if isinstance(optimizer, REFUSED):
            raise ConfigError(f"optimizer.type: {name} does not work on sharded weights; Adam, AdamW and SGD do")
        if isinstance(optimizer, UNFUSED) and any(group.get("fused") for group in optimizer.param_groups):
            raise ConfigError(f"optimizer.args.fused: {name} on sharded weights has no fused kernel")

    def attach(self, modules: list[nn.Module], parameters: list[nn.Parameter], position: Position) -> None:
        """Take what is trained. Raises ConfigError where that is more than the model that `shard` has sharded."""
        whole = [module for module in modules if any(not is_sharded(weight) for weight in module.parameters())]
        if whole:
            name = type(whole[0]).__name__
            raise ConfigError(f"trainer.strategy.type: fsdp shards the model alone; {name} is trained too")
        super().attach(modules, parameters, position)

    def passes(self, microbatches: Sequence[Any], weights: list[Weight]) -> Iterator[Pair]:
        """Yield the microbatches; gradients are exchanged in the backward of the last one alone."""
        for index, pair in enumerate(zip(microbatches, weights)):
            is_last = index == len(microbatches) - 1
            for module in self.modules:
                module.set_requires_gradient_sync(is_last)  # type: ignore[operator]
                module.set_is_last_backward(is_last)  # type: ignore[operator]
            yield pair

    def full(self, state: Any) -> Any:
        """Return `state` with whole tensors on the CPU in the first process, and empty ones in the others.

        Where each process writes its own part, return it as it is.
        """
        return state if self.saves_shards else map_tensors(_gathered, state)

    def localized(self, part: Any, state: Any) -> Any:
        """Return `state` with this process's part of each tensor that `part` has sharded.

        What does not fit stays as it is, for the check of what is loaded.
        """
        if not isinstance(part, torch.optim.Optimizer):
            return _like(state, part.state_dict())
        weights = dict(enumerate(weight for group in part.param_groups for weight in group["params"]))
        values = state.get("state") if isinstance(state, dict) else None
        if not isinstance(values, dict):
            return state
        own = {number: dict.fromkeys(values[number], weights[number]) for number in values.keys() & weights.keys()}
        return state | {"state": _like(values, own)}  # what has a weight's shape is sharded as it is


def shard(model: nn.Module, options: Any) -> None:
    """Shard `model` in place where `options`, those of the `trainer` section, say so: block by block, then the rest.

    Its methods and the names of its weights stay; its parameters are new ones. One process has the whole. Raises
    ConfigError for what cannot be sharded.
    """
    if options.strategy.type != "fsdp":
        return
    _check_options(options)
    names = _block_names(model, options.strategy.blocks)
    _check_weights(model, names)
    if world_size() == 1:
        return
    for tensor in (*model.parameters(), *model.buffers()):  # all begin with the weights of the first process
        dist.broadcast(tensor.detach(), src=0)
    if options.ema_decay is not None:  # a sharded model cannot be copied
        vars(model)[TWIN] = deepcopy(model).requires_grad_(False)
        _shard_blocks(vars(model)[TWIN], names, options.strategy.cpu_offload)
    _shard_blocks(model, names, options.strategy.cpu_offload)


def twin(model: nn.Module) -> nn.Module:
    """Return a copy of `model`: of a sharded one, the copy that `shard` made, which has the weights of then."""
    return vars(model).pop(TWIN, None) or deepcopy(model)


def _shard_blocks(model: nn.Module, names: list[str], cpu_offload: bool) -> None:
    """Shard the submodules `names`, innermost first, and then what is left of `model`."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy, fully_shard

    mesh = init_device_mesh(next(model.parameters()).device.type, (world_size(),))
    # Memory is pinned by the driver of a GPU; without one there is nothing to offload from.
    offload = CPUOffloadPolicy(pin_memory=torch.cuda.is_available()) if cpu_offload else OffloadPolicy()
    for module in [*(model.get_submodule(name) for name in names), model]:
        name = type(module).__name__
        # After every forward, the model's own too: its parameters would else be whole ones after a validation.
        fully_shard(module, mesh=mesh, reshard_after_forward=True, offload_policy=offload)
        type(module).__name__ = name  # that of the subclass that this made of it
        # gloo has no averages. Neither call is recursive.
        module.set_gradient_divide_factor(float(world_size()))  # type: ignore[operator]
        module.set_force_sum_reduction_for_comms(True)  # type: ignore[operator]


def _check_options(options: Any) -> None:
    """Raise ConfigError for options that do not go with fsdp."""
    reasons = {
        "virtual_ranks": (options.virtual_ranks is not None, "does not go with fsdp: its slices need the whole model"),
        "cuda_graph": (options.cuda_graph, "does not go with fsdp"),
        "compile": (options.compile is not None, "does not go with fsdp, which torch would silently run uncompiled"),
        "channels_last": (options.channels_last is True, "does not go with fsdp; give false"),
        "precision": (options.precision == "fp16", "fp16 does not go with fsdp; give bf16"),
    }
    for name, (is_refused, reason) in reasons.items():
        if is_refused:
            raise ConfigError(f"trainer.{name}: {reason}")


def _block_names(model: nn.Module, patterns: list[str]) -> list[str]:
    """Return the names of the submodules that fit `patterns`, innermost first. Raises ConfigError."""
    blocks = submodules(model, patterns, "trainer.strategy.blocks")
    for name, block in sorted(blocks.items()):
        if isinstance(block, nn.ModuleList | nn.ModuleDict):
            hint = f"give {name + '.*'!r}, what is in it"
            raise ConfigError(f"trainer.strategy.blocks: {name!r} is a list of modules, which is never called; {hint}")
    return sorted(blocks, key=lambda name: (-name.count("."), name))


def _check_weights(model: nn.Module, blocks: list[str]) -> None:
    """Raise ConfigError for weights that cannot be sharded so."""
    where, weights = "trainer.strategy", list(model.named_parameters(remove_duplicate=False))
    if not weights:
        raise ConfigError(f"{where}.type: {type(model).__name__} has no weights to shard")
    for name, weight in weights:
        if weight.ndim == 0:
            raise ConfigError(f"{where}.type: fsdp cannot shard a scalar; give {name} the shape (1,)")
        if not weight.is_contiguous():
            raise ConfigError(f"{where}.type: fsdp cannot shard {name}, which is not contiguous in memory")
    for block in blocks:
        outside = {id(weight): name for name, weight in weights if not name.startswith(f"{block}.")}
        for name, weight in weights:
            if name.startswith(f"{block}.") and id(weight) in outside:
                other = outside[id(weight)]
                raise ConfigError(f"{where}.blocks: {block!r} shares the weight {name} with {other} outside of it")


def _gathered(tensor: Tensor) -> Tensor:
    """Return the whole of `tensor` on the CPU; nothing of it in processes that do not write."""
    if not is_sharded(tensor):
        return tensor
    full: Tensor = tensor.full_tensor()  # type: ignore[attr-defined]
    return full.detach().cpu() if is_main() else full.new_empty(0)


def _like(value: Any, own: Any) -> Any:
    """Return `value` with every tensor sharded as the one at its place in `own` is, where it has its shape."""
    if isinstance(value, dict) and isinstance(own, dict):
        copy = value.copy()
        for key in copy.keys() & own.keys():
            copy[key] = _like(value[key], own[key])
        return copy
    is_whole = isinstance(value, Tensor) and isinstance(own, Tensor) and is_sharded(own) and value.shape == own.shape
    return _distributed(value, own) if is_whole else value


def _distributed(value: Tensor, own: Any) -> Tensor:
    """Return this process's part of `value`, which all have read: nothing is exchanged.

    Where `value` is on the meta device, its values are read later.
    """
    if value.is_meta:
        return torch.zeros_like(own.detach(), dtype=value.dtype)
    from torch.distributed.tensor import distribute_tensor

    whole = value.detach().to(own.device, copy=True).contiguous()
    return distribute_tensor(whole, own.device_mesh, own.placements, src_data_rank=None)
