"""The summary of a model has its true shapes, parameters and FLOPs, and fits a screen."""

from __future__ import annotations

import re

import torch
from torch import nn

from base.model_graph import first_call
from preflight.summary import MAX_ROWS, summarize


def cells(lines: list[str]) -> list[list[str]]:
    """Return the table's cells without its header."""
    return [re.split(r" {2,}", line.strip()) for line in lines[1:]]


def test_shapes_parameters_and_flops_are_those_of_the_layers() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 10))
    conv, linear = 2 * 2 * 4 * 6 * 6 * 9, 2 * 2 * 4 * 6 * 6 * 10  # batch of 2, 2 for a multiply-add
    lines = summarize(model, (torch.zeros(2, 1, 8, 8),), {})
    assert cells(lines) == [
        ["model", "Sequential", "float32 [2, 10]", "1,486", f"{(conv + linear) / 1e3:.3g} k"],
        ["0", "Conv2d", "float32 [2, 4, 6, 6]", "36", f"{conv / 1e3:.3g} k"],
        ["1", "ReLU", "float32 [2, 4, 6, 6]", "0"],
        ["2", "Flatten", "float32 [2, 144]", "0"],
        ["3", "Linear", "float32 [2, 10]", "1,450", f"{linear / 1e3:.3g} k"],
    ]
    assert len({line.index("float32") for line in lines[1:]}) == 1


def test_alike_neighbours_are_one_row() -> None:
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 12)
    lines = summarize(model, (torch.zeros(3, 5, 8),), {})
    [row] = [line for line in lines if "0-11 (12x)" in line]
    assert f"{sum(p.numel() for p in model.parameters()):,}" in row
    assert len(lines) < 15


def test_a_model_of_many_layers_fits_a_screen() -> None:
    model = nn.Sequential(*(nn.Sequential(nn.Linear(4 + i, 5 + i), nn.ReLU(), nn.Dropout()) for i in range(45)))
    lines = summarize(model, (torch.zeros(2, 4),), {})
    assert len(lines) <= MAX_ROWS + 1
    deep = nn.Sequential(*(nn.Linear(4 + i, 5 + i) for i in range(90)))
    assert summarize(deep, (torch.zeros(2, 4),), {})[-1] == "… and 41 more layers"


def test_nothing_of_the_model_changes() -> None:
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2))
    with first_call(model) as calls:
        model(torch.ones(3, 4))
        model(torch.ones(2, 4))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    [(args, kwargs)] = calls
    assert args[0].shape == (3, 4)
    summarize(model, args, kwargs)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training
    assert not model._forward_hooks
