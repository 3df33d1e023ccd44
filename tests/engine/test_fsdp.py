"""What cannot be sharded over processes is refused with one message, before a run begins."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from distributed.fsdp import Fsdp, shard
from parse_config import TrainerOptions
from utils import ConfigError


def options_of(**changes: Any) -> TrainerOptions:
    """Return the options of a trainer with fsdp."""
    return TrainerOptions(**{"epochs": 1, "strategy": {"type": "fsdp"}, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"virtual_ranks": 2}, "trainer.virtual_ranks: does not go with fsdp"),
        ({"cuda_graph": True}, "trainer.cuda_graph: does not go with fsdp"),
        ({"compile": {}}, "trainer.compile: does not go with fsdp"),
        ({"channels_last": True}, "trainer.channels_last: does not go with fsdp"),
        ({"precision": "fp16"}, "trainer.precision: fp16 does not go with fsdp"),
        ({"blocks": ["layer.*"]}, "trainer.strategy.blocks: no submodule 'layer.*'; did you mean 'layers"),
        ({"blocks": ["layers"]}, "'layers' is a list of modules, which is never called; give 'layers.*'"),
    ],
)
def test_options_that_do_not_go_with_it_are_refused(changes: dict[str, Any], message: str) -> None:
    if "blocks" in changes:
        changes = {"strategy": {"type": "fsdp", **changes}}
    with pytest.raises(ConfigError) as error:
        shard(Tied(), options_of(**changes))
    assert message in str(error.value)


class Tied(nn.Module):
    """Two blocks, the second of which may have a weight of the first."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])


def test_weights_that_cannot_be_sharded_are_refused() -> None:
    options = options_of(strategy={"type": "fsdp", "blocks": ["layers.*"]})
    model = Tied()
    shard(model, options)
    model.layers[1].weight = model.layers[0].weight
    with pytest.raises(ConfigError, match=r"'layers.\d' shares the weight layers.\d.weight with layers.\d.weight"):
        shard(model, options)
    model = Tied()
    model.scale = nn.Parameter(torch.ones(()))
    with pytest.raises(ConfigError, match=r"cannot shard a scalar; give scale the shape \(1,\)"):
        shard(model, options)
    model = Tied()
    model.layers[0].weight = nn.Parameter(torch.ones(2, 3).T)
    with pytest.raises(ConfigError, match=r"cannot shard layers.0.weight, which is not contiguous"):
        shard(model, options)
    with pytest.raises(ConfigError, match="Identity has no weights to shard"):
        shard(nn.Identity(), options_of())


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("Adafactor", {}, "optimizer.type: Adafactor does not work on sharded weights"),
        ("Muon", {}, "optimizer.type: Muon does not"),
        ("LBFGS", {}, "optimizer.type: LBFGS does not"),
        ("SparseAdam", {}, "optimizer.type: SparseAdam does not"),
        ("SGD", {"lr": 0.1, "fused": True}, "optimizer.args.fused: SGD on sharded weights has no fused kernel"),
        ("Adagrad", {"fused": True}, "optimizer.args.fused: Adagrad on sharded weights has no fused kernel"),
    ],
)
def test_optimizers_that_do_not_work_on_parts_are_refused(name: str, args: dict[str, Any], message: str) -> None:
    strategy, weight = Fsdp(options_of(), torch.device("cpu"), 0), nn.Parameter(torch.ones(2, 2))
    strategy.check_optimizer(torch.optim.AdamW([weight], fused=True))
    strategy.check_optimizer(torch.optim.SGD([weight]))
    with pytest.raises(ConfigError) as error:
        strategy.check_optimizer(getattr(torch.optim, name)([weight], **args))
    assert str(error.value).startswith(message)
