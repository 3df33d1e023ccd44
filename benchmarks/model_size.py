"""Steps per second against the size of the model: what this project adds to a hand-written step is a constant."""

from __future__ import annotations

import argparse
import statistics
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

import train
from contenders.hand_written import TensorBatches
from contenders.ours import train_in_turns
from data_loader.csv_data import CsvDataLoader
from model.model import MLP
from report import Section, ratio, table
from slots import SLOTS
from turns import EPOCHS, NextTurn, race

WIDTHS = (16, 64, 256, 1024)
NUM_STEPS, BATCH_SIZE, NUM_FEATURES = 400, 128, 10
COLUMNS = [f"x{i}" for i in range(NUM_FEATURES)] + ["y"]


def part(options: argparse.Namespace) -> Section:
    """Race a hand-written loop and this project, both with fused Adam, for each width of an MLP."""
    path = options.out / "rows.csv"
    values = np.random.default_rng(0).normal(size=(NUM_STEPS * BATCH_SIZE, len(COLUMNS)))
    np.savetxt(path, values, fmt="%.4f", delimiter=",", header=",".join(COLUMNS), comments="")
    rows = []
    for width in WIDTHS:
        contenders = {
            "hand-written": partial(hand_written, path=path, width=width),
            "this project": partial(ours, path=path, width=width, out=options.out),
        }
        seconds = race(contenders, options.rounds)
        per_s = [f"{NUM_STEPS / statistics.median(seconds[name]):,.0f}" for name in contenders]
        num_parameters = sum(parameter.numel() for parameter in MLP(NUM_FEATURES, [width, width]).parameters())
        slower = ratio(seconds["this project"], seconds["hand-written"])
        added_ms = (slower - 1) * statistics.median(seconds["hand-written"]) / NUM_STEPS * 1e3
        rows.append([f"{num_parameters:,}", *per_s, f"{slower:.2f}", f"{added_ms:.2f} ms"])
    header = ["parameters", "hand-written, steps/s", "this project, steps/s", "time ratio", "added per step"]
    text = f"An MLP with two hidden layers, {NUM_STEPS} steps of batch {BATCH_SIZE}, fused Adam on both sides."
    return Section("Steps per second and the size of the model", f"{text}\n\n{table(header, rows)}")


def hand_written(next_turn: NextTurn, path: Path, width: int) -> None:
    """Train on tensors in memory; nothing is logged."""
    data: Any = CsvDataLoader(str(path), "y", BATCH_SIZE).dataset
    model = MLP(NUM_FEATURES, [width, width])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    batches = TensorBatches(data.inputs, data.targets, BATCH_SIZE, shuffle=True)
    while True:
        next_turn()
        for inputs, targets in batches:
            optimizer.zero_grad()
            loss = F.mse_loss(model(inputs), targets)
            loss.backward()
            optimizer.step()


def ours(next_turn: NextTurn, path: Path, width: int, out: Path) -> None:
    """Train with all that is on by default but checkpoints, of which there is one per epoch and not per step."""
    config = {
        "name": f"MLP-{width}",
        "n_gpu": 0,
        "arch": {"type": "MLP", "args": {"in_features": NUM_FEATURES, "hidden": [width, width]}},
        "data_loader": {
            "type": "CsvDataLoader",
            "args": {"path": str(path), "target": "y", "batch_size": BATCH_SIZE},
        },
        "optimizer": {"type": "Adam", "args": {"lr": 1e-3, "fused": True}},
        "loss": "mse_loss",
        "trainer": {"epochs": EPOCHS, "save_dir": str(out), "save_period": EPOCHS},
    }
    train_in_turns(train.build_trainer(train.ConfigParser(config, slots=SLOTS)), next_turn)
