"""An exported model gives what the run's model gives, from the files alone; what does not is never left behind."""

from __future__ import annotations

import json
import random
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pytest
import torch
from torch import Tensor

import export as export_script
from deploy.calls import argument_names, calls_of, resized_call
from deploy.table_inputs import columns_of
from example_runs import evaluate, train
from helpers import ROOT, run_script
from model.model import MnistModel, PolynomialRegression
from prediction import load_run
from test_configs import CASES, train_steps
from trainer import run_batch
from utils import ConfigError, RunDirError
from utils.errors import ExportError

QUADRATIC = Path("configs/csv_regression.json")
FORMATS = ["onnx", "torch", "safetensors"]


def export(run_dir: Path, *args: str) -> tuple[Path, dict[str, Any]]:
    """Run export.py's main in this process; return the folder and what its export.json says."""
    folder = export_script.main(*export_script.parse_args(["-r", str(run_dir), *args]))
    return folder, json.loads((folder / "export.json").read_text())


def run_the_card(folder: Path, monkeypatch: pytest.MonkeyPatch, **inputs: Any) -> Any:
    """Run the code of the model card, in its folder, with its zeros replaced by `inputs`; return the outputs."""
    (code,) = re.findall(r"^```python\n(.*?)^```$", (folder / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert code.count("# yours") == len(inputs)
    pattern = r"^inputs = \{.*?^\}$" if "onnx" in code else r"^\w+ = [^\n]*  # yours$"
    code = re.sub(pattern, "", code, flags=re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(folder)
    exec(code, names := {"inputs": inputs, **inputs})
    monkeypatch.chdir(ROOT)
    return names["outputs"]


def test_onnx_gives_the_same_at_any_batch_size(
    tmp_path: Path, digits_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = train_steps(QUADRATIC, digits_dir, tmp_path)
    measured = evaluate("-r", str(run_dir), "-d", "cpu")
    folder, about = export(run_dir)
    assert folder == run_dir / "export-onnx"
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "export.json", "model.onnx"]
    assert about["check"]["num_samples"] == 500
    assert about["check"]["relative"] <= 1e-5
    assert about["test"]["metrics"] == pytest.approx(measured)
    assert about["inputs"] == [{"name": "features", "dtype": "float32", "shape": ["batch", 1]}]
    assert about["outputs"] == [{"name": "outputs", "dtype": "float32", "shape": ["batch", 1]}]
    assert about["columns"] == ["x"]
    model = PolynomialRegression(degree=2)
    model.load_state_dict(torch.load(run_dir / "model_best.pth")["model"])
    for size in (1, 7, 512):
        features = torch.linspace(-3, 3, size).unsqueeze(1)
        (outputs,) = run_the_card(folder, monkeypatch, features=features.numpy())
        torch.testing.assert_close(torch.from_numpy(outputs), model(features).detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["torch", "safetensors"])
def test_other_formats_give_the_same(
    name: str, tmp_path: Path, digits_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = train_steps(QUADRATIC, digits_dir, tmp_path)
    folder, about = export(run_dir, "--format", name, "-o", str(tmp_path / "exported"))
    assert (about["check"]["absolute"], about["test"]) == (0.0, {})
    weights = torch.load(run_dir / "model_best.pth")["model"]
    features = torch.linspace(-3, 3, 7).unsqueeze(1)
    model = PolynomialRegression(degree=2)
    model.load_state_dict(weights)
    assert torch.equal(run_the_card(folder, monkeypatch, features=features), model(features))


NOT_EXPORTED = {"configs/gan.json": "of several models, predict_batch in trainer/batch.py must say which to export"}
"""Why a config is not exported, by its path."""


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("path", CASES)
def test_every_config_exports(
    path: Path, name: str, digits_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if str(path) in NOT_EXPORTED:
        pytest.skip(NOT_EXPORTED[str(path)])
    run_dir = train_steps(path, digits_dir, tmp_path)
    folder, about = export(run_dir, "--format", name)
    print(f"largest difference of {path} as {name}: {about['check']['relative']:.1e} relative")
    assert about["check"]["relative"] <= 1e-5
    (folder / "configs").symlink_to(ROOT / "configs")  # where the code of configs/hub.json is
    loaded = load_run(run_dir, "cpu")
    _, batches, _ = export_script.held_out(loaded.config)
    calls = list(calls_of(loaded.model, partial(run_batch, loaded.model, lambda *_: torch.tensor(0.0)), batches))
    for size in (1, 7, 512):  # what the card says runs on real inputs, also of texts
        call = resized_call(loaded.model, calls, size)
        inputs: dict[str, Any] = dict(zip(argument_names(loaded.model, call), call.tensors()))
        if name == "onnx":
            inputs = {key: value.numpy() for key, value in inputs.items()}
            if "table" in about["facts"]:
                (matrix,) = inputs.values()
                inputs = columns_of(matrix, about["facts"]["table"])
        outputs = run_the_card(folder, monkeypatch, **inputs)
        output = torch.from_numpy(outputs[0]) if name == "onnx" else outputs
        scale = float(call.outputs.square().mean().sqrt())
        torch.testing.assert_close(output.detach(), call.outputs, rtol=1e-5, atol=1e-5 * scale)


@pytest.mark.slow
def test_raw_texts_of_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row_encoder = pytest.importorskip("tables.row_encoder")
    generator = random.Random(0)
    columns: dict[str, list[str]] = {
        "age": [generator.choice(["", "18", "40.5", "1e3"]) for _ in range(200)],
        "kind of job": [generator.choice(["admin", "größer, x", "tech", "NA", f"rare{i}"]) for i in range(200)],
        "since": [f"20{generator.randint(10, 30)}-02-28" for _ in range(200)],
        "member": [generator.choice(["yes", "no"]) for _ in range(200)],
        "income": [str(generator.random()) for _ in range(200)],
    }
    table = pa.table(columns)
    pa_csv.write_csv(table, tmp_path / "people.csv")
    age = {"kind": "number", "missing": "mean", "indicator": True}
    job = {"kind": "category", "missing": "most_frequent", "min_count": 5, "encoding": "embedding"}
    kinds = {"age": age, "kind of job": job, "since": "date", "member": "bool"}
    args = {"path": str(tmp_path / "people.csv"), "target": "income", "columns": kinds, "missing_values": ["", "NA"]}
    config = {
        "name": "People",
        "n_gpu": 0,
        "arch": {"type": "TableMLP", "args": {"hidden": [16]}},
        "data_loader": {"type": "TableDataLoader", "args": {**args, "batch_size": 32, "test_split": 0.2}},
        "optimizer": {"type": "Adam", "args": {"lr": 0.01}},
        "loss": "mse_loss",
        "trainer": {"epochs": 1, "save_dir": str(tmp_path / "saved"), "monitor": "off"},
    }
    run_dir = train(config)
    folder, about = export(run_dir)
    _, own = export(run_dir, "--format", "torch")
    rows = row_encoder.RowEncoder.from_facts(about["facts"]["table"]).encode(table)
    expected = run_the_card(run_dir / "export-torch", monkeypatch, **{own["inputs"][0]["name"]: rows})
    dates = rows[:, 2 : 2 + about["inputs"][2]["shape"][1]].numpy()
    inputs = {name: np.array(columns[name])[:, None] for name in ("kind of job", "member")}
    ages = np.array([[float(text or "nan")] for text in columns["age"]], np.float32)
    (outputs,) = run_the_card(folder, monkeypatch, age=ages, since=dates, **inputs)
    torch.testing.assert_close(torch.from_numpy(outputs), expected.detach(), rtol=1e-5, atol=1e-5)


def test_the_average_is_exported(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    config["trainer"] |= {"ema_decay": 0.5, "epochs": 1}
    run_dir = train(config)
    folder, about = export(run_dir, "--format", "safetensors")
    assert (about["probabilities"], about["classes"]) == ("softmax", [str(i) for i in range(10)])
    images = torch.randn(7, 1, 28, 28)
    model = MnistModel(dropout=0.1).eval()
    checkpoint = torch.load(run_dir / "model_best.pth")
    model.load_state_dict(checkpoint["ema"]["model"])
    assert torch.equal(run_the_card(folder, monkeypatch, images=images), model(images))


def test_an_export_that_differs_leaves_nothing(
    tmp_path: Path, digits_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def noisy(self: PolynomialRegression, features: Tensor) -> Tensor:
        return features + torch.rand(1)

    run_dir = train_steps(QUADRATIC, digits_dir, tmp_path)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(PolynomialRegression, "forward", noisy)
    with pytest.raises(ExportError, match=r"not the same: on 1 samples its outputs differ by .*; allowed: 1e-05"):
        export(run_dir, "--format", "safetensors")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_model_that_cannot_be_exported_is_one_message(
    tmp_path: Path, digits_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def branching(self: PolynomialRegression, features: Tensor) -> Tensor:
        return features if features.sum() > 0 else -features

    run_dir = train_steps(QUADRATIC, digits_dir, tmp_path)
    monkeypatch.setattr(PolynomialRegression, "forward", branching)
    with pytest.raises(ExportError) as caught:
        export(run_dir, "--format", "torch")
    first, second = str(caught.value).splitlines()
    assert first.startswith("PolynomialRegression cannot be exported as torch: GuardOnDataDependentSymNode: Could not")
    assert second == f"the whole reason: {run_dir / 'export-torch.log'}"
    assert "in branching" in (run_dir / "export-torch.log").read_text()
    assert not (run_dir / "export-torch").exists()
    monkeypatch.undo()
    export(run_dir, "--format", "torch")  # and now that it can be, the log goes
    assert not (run_dir / "export-torch.log").exists()


def test_a_folder_with_other_content_is_refused(tmp_path: Path, digits_dir: Path) -> None:
    run_dir = train_steps(QUADRATIC, digits_dir, tmp_path)
    with pytest.raises(RunDirError, match="saved: is there already, and no earlier export; name another with -o"):
        export(run_dir, "--format", "safetensors", "-o", str(tmp_path / "saved"))
    with pytest.raises(ConfigError, match="no checkpoint: give -r"):
        export_script.main(*export_script.parse_args(["-c", str(QUADRATIC)]))


@pytest.mark.slow
def test_from_the_command_line(tmp_path: Path, digits_dir: Path) -> None:
    run_dir = train_steps(QUADRATIC, digits_dir, tmp_path)
    done = run_script("export.py", "-r", str(run_dir))
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert "the same on 8 batches (500 samples) of the test data: largest difference" in done.stdout + done.stderr
    done = run_script("export.py", "-r", str(run_dir), "--format", "pickle")
    assert done.returncode == 2
