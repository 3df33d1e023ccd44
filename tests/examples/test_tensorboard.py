"""What a user finds in TensorBoard after a run: each chart and figure, once per step whatever was stopped."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch import Tensor

from checkpoint.file import load_checkpoint
from example_runs import curves, run_train, train
from few_digits import NUM_STEPS
from helpers import epochs_of
from model.model import MnistModel

SCALARS = {
    *("loss/train", "loss/valid", "accuracy/train", "accuracy/valid", "top_k_acc/train", "top_k_acc/valid"),
    *("best/val_loss", "best/val_accuracy", "best/val_top_k_acc", "lr/group0"),
    *("step/loss", "step/grad_norm", "step/update_ratio", "step/lr/group0"),
    *("perf/samples_per_sec", "perf/data_wait", "perf/host_memory_gib"),
    *("perf/step/samples_per_sec", "perf/step/data_wait"),
}
FIGURES = {"confusion_matrix", "per_class", "worst", "best"}
PR_CURVES = {f"precision_recall/{index}" for index in range(10)}
TEXTS = {"config/text_summary", "environment/text_summary"}
CHARTS = {
    "training and validation": ["loss", "accuracy", "top_k_acc"],
    "optimization": ["loss of a step", "learning rate", "gradient norm", "update-to-weight ratio"],
    "speed": ["samples per second", "share of the time waiting for data", "memory in GiB"],
}


def written(run_dir: Path) -> list[tuple[str, int]]:
    """Return (tag, step) of everything in the event files in its order, but for the texts of each process."""
    files = sorted(run_dir.glob("events.out.tfevents.*"), key=lambda path: path.name)
    events = [event for path in files for event in EventFileLoader(str(path)).Load()]
    found = [(value.tag, event.step) for event in events for value in event.summary.value]
    return [(tag, step) for tag, step in found if not tag.startswith(("environment", "git_diff"))]


def hparams_of(events: EventAccumulator) -> tuple[list[str], dict[str, Any]]:
    """Return the tags of the metrics, and the hyperparameters, that the plugin HParams finds in a run."""
    content = {tag: HParamsPluginData.FromString(data) for tag, data in events.PluginTagToContent("hparams").items()}
    metrics = [info.name.tag for info in content["_hparams_/experiment"].experiment.metric_infos]
    values = content["_hparams_/session_start_info"].session_start_info.hparams
    assert content["_hparams_/session_end_info"].session_end_info.status == 1  # success
    return metrics, {key: getattr(value, value.WhichOneof("kind")) for key, value in values.items()}


def test_a_run_has_curves_figures_texts_and_hparams(config: dict[str, Any]) -> None:
    run_dir = train(config, "--lr", "0.02", "--set", "trainer.epochs=3")
    assert not [path for path in run_dir.iterdir() if path.is_dir() and path.name != "figures"]
    events = EventAccumulator(str(run_dir)).Reload()
    tags = events.Tags()
    assert set(tags["scalars"]) == SCALARS
    assert set(tags["images"]) == {"inputs", *(f"validation/{name}" for name in FIGURES)}
    assert TEXTS | PR_CURVES | {"custom_scalars__config__"} <= set(tags["tensors"])
    assert tags["graph"]
    assert {path.name for path in (run_dir / "figures").iterdir()} == {f"{name}.png" for name in FIGURES}
    assert [event.step for event in events.Scalars("loss/valid")] == [NUM_STEPS, 2 * NUM_STEPS, 3 * NUM_STEPS]

    metrics, values = hparams_of(events)
    best = load_checkpoint(run_dir / "model_best.pth")["log"]
    assert {tag: events.Scalars(tag)[-1].value for tag in metrics} == {
        f"best/{name}": pytest.approx(value, rel=1e-6) for name, value in best.items() if name.startswith("val_")
    }
    assert (values["optimizer.type"], values["optimizer.args.lr"], values["trainer.epochs"]) == ("Adam", 0.02, 3)


def test_training_and_validation_of_a_metric_are_in_one_chart(config: dict[str, Any]) -> None:
    events = EventAccumulator(str(train(config))).Reload()
    [event] = events.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    assert {category.title: [chart.title for chart in category.chart] for category in layout.category} == CHARTS
    for category in layout.category:
        for chart in category.chart:
            [pattern] = chart.multiline.tag
            shown = [tag for tag in events.Tags()["scalars"] if re.match(pattern, tag)]
            assert shown, chart.title
            if category.title == "training and validation":
                assert sorted(shown) == [f"{chart.title}/train", f"{chart.title}/valid"]


def test_whatever_was_stopped_everything_is_there_once(config: dict[str, Any]) -> None:
    whole = train(config, "--set", "trainer.epochs=3")
    part = train(config, "--set", "trainer.epochs=2")
    run_train("-r", str(part / "checkpoint-epoch1.pth"), "--set", "trainer.epochs=2")
    run_train("-r", str(part), "--set", "trainer.epochs=3")
    assert sorted(written(part)) == sorted(written(whole))
    assert len(set(written(whole))) == len(written(whole))
    assert curves(part) == curves(whole)


def test_a_regression_shows_predicted_against_true(tmp_path: Path) -> None:
    changes = (f"trainer.save_dir={tmp_path}", "trainer.epochs=1", "trainer.monitor=off")
    run_dir = run_train("-c", "configs/csv_regression.json", *(arg for change in changes for arg in ("--set", change)))
    events = EventAccumulator(str(run_dir)).Reload()
    assert set(events.Tags()["images"]) == {"validation/predicted_vs_true", "validation/residuals"}
    assert {path.name for path in (run_dir / "figures").iterdir()} == {"predicted_vs_true.png", "residuals.png"}
    metrics, _ = hparams_of(events)
    assert metrics == ["loss/valid"]  # without a monitor there is no best epoch


def test_histograms_and_a_profile_on_request(config: dict[str, Any]) -> None:
    config["trainer"] |= {"log_histograms": 2, "profile": True, "log_figures": None, "epochs": 3}
    events = EventAccumulator(str(train(config))).Reload()
    names = [name for name, _ in MnistModel().named_parameters()]
    expected = {f"{kind}/{name}" for kind in ("weights", "gradients") for name in names}
    assert set(events.Tags()["histograms"]) == expected
    assert [event.step for event in events.Histograms(f"weights/{names[0]}")] == [2 * NUM_STEPS]
    assert events.Tags()["images"] == ["inputs"]
    [profile] = events.Tensors("profile/text_summary")
    assert b"trace.json" in profile.tensor_proto.string_val[0]


def test_figures_are_files_without_tensorboard_too(config: dict[str, Any]) -> None:
    run_dir = train(config, "--set", "trainer.tensorboard=false", "--set", "trainer.epochs=1")
    assert {path.name for path in (run_dir / "figures").iterdir()} == {f"{name}.png" for name in FIGURES}
    assert not list(run_dir.rglob("events*"))


def test_what_is_drawn_changes_no_bit(config: dict[str, Any]) -> None:
    config["trainer"] |= {"epochs": 2, "ema_decay": 0.9}
    shown = train(config, "--set", "trainer.log_histograms=1")
    plain = train(config, "--set", "trainer.log_figures=null", "--set", "trainer.tensorboard=false")
    assert epochs_of(shown) == epochs_of(plain)
    one, other = (load_checkpoint(run_dir / "latest.pth")["model"] for run_dir in (shown, plain))
    assert all(bool((one[name] == other[name]).all()) for name in one)


def test_a_model_that_cannot_be_traced_is_trained_without_a_graph(
    config: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    forward = MnistModel.forward

    def untraceable(model: MnistModel, inputs: Tensor) -> Tensor:
        if torch.jit.is_tracing():
            raise RuntimeError("not this one")
        return forward(model, inputs)

    monkeypatch.setattr(MnistModel, "forward", untraceable)
    run_dir = train(config, "--set", "trainer.epochs=1")
    assert "TensorBoard has no graph of this model, which cannot be traced: not this one" in caplog.text
    assert not EventAccumulator(str(run_dir)).Reload().Tags()["graph"]


# The server.


@contextmanager
def served(logdir: Path) -> Iterator[str]:
    """Start TensorBoard on `logdir`; yield its address when it has read what is there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), "--port", str(port)]
    server = subprocess.Popen([*command, "--load_fast=false"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(600):
            try:
                if get(f"{address}/data/plugin/scalars/tags"):
                    break
            except OSError:
                pass
            time.sleep(0.1)
        yield address
    finally:
        server.terminate()
        server.wait()


def get(address: str) -> Any:
    """Return the JSON at `address`."""
    with urllib.request.urlopen(address, timeout=30) as answer:
        return json.load(answer)


@pytest.mark.slow
def test_a_server_on_a_finished_run_shows_all_of_it(config: dict[str, Any]) -> None:
    config["trainer"] |= {"log_histograms": 1, "profile": True}
    run_dir = train(config)
    with served(run_dir.parent) as address:
        data, run = f"{address}/data/plugin", run_dir.name
        assert set(get(f"{data}/scalars/tags")[run]) == SCALARS
        layout = get(f"{data}/custom_scalars/layout")
        assert {page["title"]: [chart["title"] for chart in page["chart"]] for page in layout["category"]} == CHARTS
        assert set(get(f"{data}/images/tags")[run]) == {"inputs", *(f"validation/{name}" for name in FIGURES)}
        assert set(get(f"{data}/pr_curves/tags")[run]) == PR_CURVES
        assert set(get(f"{data}/text/tags")[run]) >= TEXTS | {"profile/text_summary"}
        assert "weights/conv1.weight" in get(f"{data}/histograms/tags")[run]
        assert run in get(f"{data}/graphs/info")
        request = urllib.request.Request(f"{data}/hparams/session_groups", method="POST")
        wanted = {"experimentName": "", "colParams": [], "allowedStatuses": ["STATUS_SUCCESS"], "sliceSize": 10}
        request.data = json.dumps(wanted).encode()
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=30) as answer:
            [group] = json.load(answer)["sessionGroups"]
        assert group["hparams"]["optimizer.args.lr"] == config["optimizer"]["args"]["lr"]
        best = min(record["val_loss"] for record in epochs_of(run_dir))
        metrics = {metric["name"]["tag"]: metric["value"] for metric in group["metricValues"]}
        assert metrics["best/val_loss"] == pytest.approx(best, rel=1e-6)
