"""average.py: the mean of weights, computed by hand; BatchNorm measured again; what does not fit is refused."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import average
import slots
from checkpoint.average import average_checkpoints, best_checkpoints
from checkpoint.file import load_checkpoint, serialise
from checkpoint.parts import eval_weights
from example_runs import evaluate, run_train, train
from helpers import assert_equal, epochs_of
from parse_config import ConfigParser, Slot
from utils import CheckpointError, ConfigError, seed_everything


def weights_of(path: Path) -> dict[str, Any]:
    return dict(eval_weights(load_checkpoint(path)))


def mean_of(paths: list[Path]) -> dict[str, Any]:
    """Return the mean of each tensor by NumPy."""
    states = [weights_of(path) for path in paths]
    return {
        name: torch.tensor(np.mean([state[name].double().numpy() for state in states], axis=0)).to(value.dtype)
        for name, value in states[0].items()
    }


@pytest.fixture
def run_dir(config: dict[str, Any]) -> Path:
    config["trainer"] |= {"epochs": 4, "keep_checkpoints": 1, "keep_best": 2, "monitor": "min val_loss"}
    return train(config)


def test_the_best_of_a_run_are_averaged_and_tested(run_dir: Path, tmp_path: Path) -> None:
    values = {record["epoch"]: record["val_loss"] for record in epochs_of(run_dir)}
    first, second = sorted(values, key=lambda epoch: values[epoch])[:2]
    paths = [run_dir / f"checkpoint-epoch{epoch}.pth" for epoch in (first, second)]
    assert best_checkpoints(run_dir, 2) == paths
    output = average.main(["-r", str(run_dir), "--best", "2"])
    assert output == run_dir / "averaged.pth"
    assert_equal(weights_of(output), mean_of(paths))
    assert math.isfinite(evaluate("-r", str(output))["loss"])
    given = str(tmp_path / "saved" / "given.json")
    tuned = run_train("-c", given, "-r", str(output), "--set", "trainer.epochs=1")
    assert load_checkpoint(tuned / "latest.pth")["position"]["epoch"] == 2
    with pytest.raises(CheckpointError):  # it is no point of a run to go on from
        run_train("-r", str(output))


def test_a_mean_of_one_checkpoint_with_itself_is_that_checkpoint(run_dir: Path) -> None:
    path = run_dir / "model_best.pth"
    assert_equal(average_checkpoints([path, path, path])["model"], weights_of(path))


def test_several_runs_give_their_best_checkpoints(config: dict[str, Any], tmp_path: Path) -> None:
    runs = [train(config, "--set", f"seed={seed}", "--set", "trainer.ema_decay=0.9") for seed in (0, 1)]
    output = average.main(["-r", *map(str, runs), "-o", str(tmp_path / "soup.pth")])
    assert_equal(weights_of(output), mean_of([path / "model_best.pth" for path in runs]))
    assert evaluate("-r", str(output), "-c", str(tmp_path / "saved" / "given.json"))["loss"] > 0


@pytest.fixture
def with_norm_net() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        slot = Slot(("norm_train",), base=nn.Module, required=True, has_state=True)
        patch.setitem(slots.SLOTS, "arch", slot)
        yield


@pytest.mark.usefixtures("with_norm_net")
def test_batch_norm_is_measured_on_the_training_data(config: dict[str, Any]) -> None:
    """Without dropout, the mean over batches of each batch's mean and unbiased variance, as torch defines them."""
    config["arch"] = {"type": "NormNet", "args": {"dropout": 0.0}}
    config["data_loader"]["args"]["batch_size"] = 50
    run_dir = train(config)
    output = average.main(["-r", str(run_dir / "checkpoint-epoch1.pth"), str(run_dir / "checkpoint-epoch2.pth")])
    weights = weights_of(output)
    means = mean_of([run_dir / "checkpoint-epoch1.pth", run_dir / "checkpoint-epoch2.pth"])
    for name in ("hidden.weight", "hidden.bias", "norm.weight", "norm.bias", "head.weight"):
        assert torch.equal(weights[name], means[name])

    seed_everything(config["seed"])
    loader = ConfigParser(config, slots=slots.SLOTS).init_obj("data_loader")
    loader.split_validation()
    hidden = [
        nn.functional.linear(images.flatten(1) * weights["scale"], weights["hidden.weight"], weights["hidden.bias"])
        for images, _ in loader
    ]
    assert torch.allclose(weights["norm.running_mean"], torch.stack([h.mean(0) for h in hidden]).mean(0), atol=1e-5)
    assert torch.allclose(weights["norm.running_var"], torch.stack([h.var(0) for h in hidden]).mean(0), atol=1e-4)
    assert weights["norm.num_batches_tracked"] == len(hidden)
    assert weights["norm.num_batches_tracked"].dtype == torch.int64


def test_what_does_not_fit_is_refused(run_dir: Path, tmp_path: Path) -> None:
    state = load_checkpoint(run_dir / "latest.pth")
    state["model"]["fc2.bias"] = torch.zeros(7)
    state["ema"] = {}
    (tmp_path / "other.pth").write_bytes(serialise(state))
    before = sorted(run_dir.iterdir())
    both = [str(run_dir / "latest.pth"), str(tmp_path / "other.pth")]
    with pytest.raises(
        CheckpointError, match=r"other\.pth: is not like .*: fc2\.bias is float32 \[7\], not float32 \[10\]"
    ):
        average.main(["-r", *both])
    with pytest.raises(ConfigError, match="an average needs several checkpoints"):
        average.main(["-r", str(run_dir)])
    with pytest.raises(CheckpointError, match=r"--best 9, but only \d of its epochs have a checkpoint"):
        average.main(["-r", str(run_dir), "--best", "9"])
    assert sorted(run_dir.iterdir()) == before
