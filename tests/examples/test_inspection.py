"""The figures that test.py draws: what they show is what can be computed by hand."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from example_runs import curves, evaluate, run_train, train
from helpers import ROOT, newest
from prediction.inspection import Column, Seen, columns_of, draw_figures, grouped, permutation_importance
from trainer import batch as batch_functions
from utils import ConfigError

CPU = torch.device("cpu")


def test_importance_is_the_rise_of_the_loss() -> None:
    model = nn.Linear(3, 1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[3.0, 0.0, 1.0]]))
    inputs = torch.randn(50, 3, generator=torch.Generator().manual_seed(1))
    targets = model(inputs).detach() + 1
    columns = [Column("a", 0), Column("b", 1), Column("a and c", 0), Column("both", 1, 2)]
    with torch.no_grad():
        rises = permutation_importance(model, F.mse_loss, Seen(inputs, targets, targets), columns, batch_functions)
    assert rises[1] == pytest.approx(0.0, abs=1e-6)  # which the model does not use
    generator = torch.Generator().manual_seed(0)
    for repeat in range(5):
        order = torch.randperm(50, generator=generator)
        change = 3 * (inputs[order, 0] - inputs[:, 0]) - 1
        assert rises[0, repeat] == pytest.approx(change.square().mean().item() - 1, rel=1e-5)


def test_values_are_grouped() -> None:
    values = np.array([0.0, 1.0, 2.0, np.nan, 1.0])
    names, groups = grouped(values, ["low", "high"])
    assert names == ["other", "low", "high", "missing"]
    assert groups.tolist() == [0, 1, 2, 3, 1]
    names, groups = grouped(np.arange(100.0), [])
    assert np.bincount(groups).tolist() == [10] * 10
    assert (names[0], names[-1]) == ("0", "missing")
    assert grouped(np.array([5.0, 5.0, np.nan]), [])[1].tolist() == [0, 0, 1]
    assert grouped(np.array([np.nan]), []) == (["missing"], [0])
    names, groups = grouped(np.array([1.0, 0.0, 1.0, np.nan]), [])  # as of a bool
    assert (names, groups.tolist()) == (["0", "1", "missing"], [1, 0, 1, 2])


def test_columns_are_named_by_the_data() -> None:
    class Loader:
        features = ("x", "y")

    table = [{"name": "d", "kind": "date", "parts": ["year", "day"], "labels": []}]
    table += [{"name": "job", "kind": "category", "labels": ["a"]}]
    assert columns_of(Loader(), {}) == [Column("x", 0), Column("y", 1)]
    assert columns_of(object(), {"table": {"columns": table}}) == [Column("d", 0, 2, []), Column("job", 2, 1, ["a"])]
    assert columns_of(object(), {}) == []


def test_a_table(tmp_path: Path) -> None:
    generator = random.Random(0)
    with open(tmp_path / "table.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["fixed acidity", "b/c", "quality"])
        writer.writerows([generator.random() for _ in range(3)] for _ in range(60))
    config: dict[str, Any] = json.loads((ROOT / "configs" / "wine_quality.json").read_text())
    config["data_loader"]["args"] |= {"path": str(tmp_path / "table.csv"), "batch_size": 16}
    config["arch"]["args"]["in_features"] = 2
    config["trainer"] |= {"epochs": 1, "save_dir": str(tmp_path / "saved"), "monitor": "off"}
    config["metrics"] = []  # torchmetrics takes long to import
    run_dir = train(config)
    without = evaluate("-r", str(run_dir), "-d", "cpu")
    assert evaluate("-r", str(run_dir), "-d", "cpu", "--figures") == without
    drawn = sorted(path.stem for path in (run_dir / "figures").glob("test_*.png"))
    columns = ["test_error_by_0_fixed_acidity", "test_error_by_1_b_c", "test_importance"]
    assert drawn == [*columns, "test_predicted_vs_true", "test_residuals"]
    for name in drawn:
        with Image.open(run_dir / "figures" / f"{name}.png") as image:
            image.verify()
    # TensorBoard has them too, once; the run goes on as if they were not there.
    events = EventAccumulator(str(run_dir / "figures"), {"images": 0}).Reload()
    assert sorted(events.Tags()["images"]) == [name.replace("_", "/", 1) for name in drawn]
    (shown,) = events.Images("test/importance")
    assert shown.encoded_image_string == (run_dir / "figures" / "test_importance.png").read_bytes()
    assert shown.step == newest(run_dir)["position"]["global_step"]
    run_train("-r", str(run_dir), "--set", "trainer.epochs=2")
    evaluate("-r", str(run_dir), "-d", "cpu", "--figures")
    assert len(list((run_dir / "figures").glob("events.out.tfevents.*"))) == 1
    (again,) = EventAccumulator(str(run_dir / "figures"), {"images": 0}).Reload().Images("test/importance")
    assert again.step == 2 * shown.step
    assert [step for step, _ in curves(run_dir)["loss/train"]] == [shown.step, again.step]


def test_classes(config: dict[str, Any]) -> None:
    config["trainer"] |= {"epochs": 1, "log_figures": None}
    run_dir = train(config)
    evaluate("-r", str(run_dir), "-d", "cpu", "--figures")
    drawn = {path.stem for path in (run_dir / "figures").glob("*.png")}
    assert drawn == {"test_confusion_matrix", "test_per_class", "test_roc", "test_precision_recall"}


def test_other_outputs_are_refused() -> None:
    model = nn.Linear(2, 3)
    batches = [(torch.zeros(4, 2), torch.zeros(4, 3).unsqueeze(0))]
    with pytest.raises(ConfigError, match=r"--figures: wanted: outputs \(N, C\) and classes \(N,\)"):
        draw_figures(model, lambda outputs, _: outputs.sum(), batches, [], CPU, batch_functions)
