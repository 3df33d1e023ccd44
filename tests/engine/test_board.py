"""The texts of a run are what is recorded beside it; tracing a model leaves no trace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from base.model_graph import add_graph
from logger import TensorboardWriter
from logger.dashboard import code_and_environment, hyperparameters

RECORD = {"host": "one", "git": {"commit": "abc", "diff": "git.diff"}}


def test_the_environment_and_the_diff_are_those_of_this_process(tmp_path: Path) -> None:
    (tmp_path / "environment.json").write_text(json.dumps({"processes": [{"host": "zero"}, RECORD]}))
    (tmp_path / "git.diff").write_text("-old\n+```new```\n")
    texts = code_and_environment(tmp_path, {"torch": "2"})
    assert texts["environment"] == f"```json\n{json.dumps(RECORD, indent=4)}\n```"
    assert texts["git_diff"] == "```diff\n-old\n+` ` `new` ` `\n\n```"


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"processes": []}', '{"processes": [1]}', "[" * 5000])
def test_without_a_record_the_environment_is_what_the_checkpoint_has(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "environment.json").write_text(content)
    assert code_and_environment(tmp_path, {"torch": "2"}) == {"environment": '```json\n{\n    "torch": "2"\n}\n```'}


def test_runs_are_compared_by_types_and_arguments() -> None:
    config: dict[str, Any] = {
        "name": "a",
        "$schema": "b",
        "seed": 3,
        "arch.type": "Net",
        "arch.args.sizes": [4, 8],
        "data_loader.args.data_dir": "data/",
        "optimizer.args.lr": 0.1,
        "optimizer.args.fused": True,
        "lr_scheduler": None,
        "trainer.save_dir": "saved/",
        "trainer.epochs": 5,
        "loss": "x" * 1000,
    }
    expected = {
        "seed": 3,
        "arch.type": "Net",
        "arch.args.sizes": "[4, 8]",
        "optimizer.args.lr": 0.1,
        "trainer.epochs": 5,
    }
    assert hyperparameters(config) == expected


class Counting(nn.Module):
    """Draws random numbers and counts its passes in a buffer, in evaluation too."""

    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.register_buffer("count", torch.zeros(()))

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """{"x": (N, 3)} -> (N, 2)."""
        self.count += 1
        return self.linear(inputs["x"]) + torch.rand(2)


def test_tracing_leaves_model_and_random_state_as_they_are(tmp_path: Path) -> None:
    model, writer = Counting(), TensorboardWriter(tmp_path)
    assert writer.writer is not None
    state = torch.get_rng_state()
    inputs = {"x": torch.rand(2, 3, generator=torch.Generator())}
    add_graph(writer.writer, model, lambda: model(inputs), torch.device("cpu"))
    writer.close()
    assert torch.equal(torch.get_rng_state(), state)
    assert model.count == 0
    assert model.training
    assert EventAccumulator(str(tmp_path)).Reload().Tags()["graph"]
