"""Epoch metrics are the metrics of the whole epoch, whatever the batches, and survive a stop in the middle of it."""

from __future__ import annotations

import math
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers import assert_equal
from torch import Tensor
from torchmetrics import MeanSquaredError, Metric
from torchmetrics.classification import BinaryAUROC, MulticlassAccuracy

from model.metric import accuracy, top_k_acc
from utils import MetricTracker

LOGITS = torch.randn(101, 5, generator=torch.Generator().manual_seed(0))
LABELS = torch.randint(5, (101,), generator=torch.Generator().manual_seed(1))
BATCH_SIZES = [1, 7, 50, 101]


def named(metric: Metric, name: str) -> Any:
    """Give a torchmetrics object the name that the config gives it."""
    metric.__name__ = name
    return metric


def make_tracker() -> MetricTracker:
    """Return a tracker of a loss, two functions and a torchmetrics object."""
    macro = named(MulticlassAccuracy(num_classes=5, average="macro"), "macro")
    return MetricTracker("loss", metric_ftns=[accuracy, macro, top_k_acc])


def feed(tracker: MetricTracker, batches: list[tuple[Tensor, Tensor]]) -> None:
    """Give the tracker batches as the trainer does."""
    for logits, labels in batches:
        tracker.update("loss", F.cross_entropy(logits, labels), n=len(labels))
        tracker.update_metrics(logits, labels)


def batches_of(batch_size: int) -> list[tuple[Tensor, Tensor]]:
    """Return the data in batches, the last one possibly smaller."""
    return list(zip(LOGITS.split(batch_size), LABELS.split(batch_size)))


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_result_is_that_of_all_samples_at_once_whatever_the_batches(batch_size: int) -> None:
    tracker = make_tracker()
    feed(tracker, batches_of(batch_size))
    expected = {
        "loss": F.cross_entropy(LOGITS.double(), LABELS).item(),
        "accuracy": (LOGITS.argmax(1) == LABELS).double().mean().item(),
        "macro": MulticlassAccuracy(num_classes=5, average="macro")(LOGITS, LABELS).item(),
        "top_k_acc": sum(y in row.topk(3).indices for row, y in zip(LOGITS, LABELS)) / len(LABELS),
    }
    assert list(tracker.result()) == list(expected)
    assert tracker.result() == pytest.approx(expected, rel=1e-6)


def test_means_weight_each_value_by_its_samples() -> None:
    tracker = MetricTracker("tensor", "float")
    for value, n in ((1.0, 3), (5.0, 1), (-2.5, 2)):
        tracker.update("tensor", torch.tensor(value), n)
        tracker.update("float", value, n)
    assert tracker.result() == {"tensor": 0.5, "float": 0.5}
    assert tracker.avg("tensor") == 0.5


def test_sums_are_exact_where_float32_would_lose_the_small_values() -> None:
    tracker = MetricTracker("value")
    tracker.update("value", torch.tensor(2.0**24))
    for _ in range(4):
        tracker.update("value", torch.tensor(1.0))
    assert tracker.avg("value") * 5 == 2**24 + 4


def test_means_without_samples_are_nan_and_reset_goes_back_to_that() -> None:
    tracker = MetricTracker("loss", metric_ftns=[accuracy])
    assert all(math.isnan(value) for value in tracker.result().values())
    feed(tracker, batches_of(50))
    tracker.reset()
    assert all(math.isnan(value) for value in tracker.result().values())


def test_an_epoch_after_reset_knows_nothing_of_the_one_before() -> None:
    used, fresh = make_tracker(), make_tracker()
    feed(used, batches_of(7)[:5])
    used.result()
    used.reset()
    for tracker in (used, fresh):
        feed(tracker, batches_of(50))
    assert used.result() == fresh.result()


def test_torchmetrics_objects_are_copied_so_that_trackers_do_not_share_them() -> None:
    metric = named(MeanSquaredError(), "mse")
    train, valid = MetricTracker(metric_ftns=[metric]), MetricTracker(metric_ftns=[metric])
    train.update_metrics(torch.zeros(2), torch.ones(2))
    valid.update_metrics(torch.zeros(2), torch.full((2,), 3.0))
    assert (train.result(), valid.result(), metric.update_called) == ({"mse": 1.0}, {"mse": 9.0}, False)


def test_metrics_build_no_graph() -> None:
    tracker = MetricTracker(metric_ftns=[F.mse_loss, named(MeanSquaredError(), "module")])
    tracker.update_metrics(torch.ones(4, requires_grad=True), torch.zeros(4))
    state = tracker.state_dict()
    tensors = [state["totals"]["mse_loss"], *state["modules"]["module"]["state"].values()]
    assert not any(tensor.requires_grad for tensor in tensors)
    assert tracker.result() == {"mse_loss": 1.0, "module": 1.0}


@pytest.mark.parametrize("stop_after", [0, 1, 8, 15])
def test_an_epoch_interrupted_and_loaded_from_a_file_ends_with_the_same_result(tmp_path: Path, stop_after: int) -> None:
    batches = batches_of(7)
    whole, first, second = make_tracker(), make_tracker(), make_tracker()
    feed(whole, batches)
    feed(first, batches[:stop_after])
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    feed(second, batches[stop_after:])
    assert second.result() == whole.result()


def test_a_torchmetrics_state_that_is_a_list_survives_too(tmp_path: Path) -> None:
    scores, labels = LOGITS[:, 0].sigmoid(), (LABELS > 2).long()
    first, second = (MetricTracker(metric_ftns=[named(BinaryAUROC(), "auroc")]) for _ in range(2))
    first.update_metrics(scores[:30], labels[:30])
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    second.update_metrics(scores[30:], labels[30:])
    assert second.result() == {"auroc": BinaryAUROC()(scores, labels).item()}


def test_an_unknown_key_is_an_error() -> None:
    with pytest.raises(KeyError, match="los"):
        MetricTracker("loss").update("los", 1.0)


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_updates_made_some_at_a_time_give_to_the_bit_what_updates_at_once_give(batch_size: int) -> None:
    later, at_once = make_tracker(), make_tracker()
    at_once._max_pending = 0
    for tracker in (later, at_once):
        feed(tracker, batches_of(batch_size))
        tracker.reset()  # what was kept until now belongs to the epoch before
        feed(tracker, batches_of(batch_size))
    assert_equal(at_once.state_dict(), later.state_dict())
    assert at_once.result() == later.result()


def test_large_outputs_are_not_kept() -> None:
    tracker = MetricTracker(metric_ftns=[accuracy])
    outputs = torch.randn(200_000, 10)
    reference = weakref.ref(outputs)
    tracker.update_metrics(outputs, torch.zeros(200_000, dtype=torch.int64))
    del outputs
    assert reference() is None
