"""The graph of a model, for TensorBoard: traced at the start of a run, without changing its results."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from distributed import world_size
from speed.levers import is_sharded
from utils.rng import rng_kept
from utils.weights import buffers_kept

logger = logging.getLogger("board")


def add_graph(writer: SummaryWriter, model: nn.Module, run: Callable[[], Any], device: torch.device) -> None:
    """Trace `model`, which is on `device`, with the arguments that `run` calls it with; where that fails, only say why.

    Of several processes none does: a pass of the first one alone would wait for the others.
    """
    if world_size() > 1 or any(map(is_sharded, model.parameters())):
        return
    try:
        with untouched(model, device), torch.no_grad(), torch.compiler.set_stance("force_eager"):
            with first_call(model) as calls:
                run()
            args, _ = calls[0]
            writer.add_graph(model, args)
    except Exception as error:  # whatever a model may do while it is traced
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        logger.info(f"TensorBoard has no graph of this model, which cannot be traced: {reason:.200}")


@contextmanager
def first_call(model: nn.Module) -> Iterator[list[Any]]:
    """Collect the arguments of the model's first call in here, as (args, kwargs)."""
    calls: list[Any] = []

    def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not calls:
            calls.append((args, kwargs))

    with model.register_forward_pre_hook(keep, with_kwargs=True):
        yield calls


@contextmanager
def untouched(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Let a pass of the model in eval mode leave random state, mode and buffers as they are, and print nothing."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with rng_kept(device), buffers_kept([model]), warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
