"""Epoch metrics are the metrics of the whole epoch, whatever the batches, and survive a stop in the middle of it."""

from __future__ import annotations

import math
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MeanSquaredError, Metric
from torchmetrics.classification import BinaryAUROC, MulticlassAccuracy, MulticlassConfusionMatrix

from helpers import assert_equal
from toy import accuracy, top_k
from utils import ConfigError, MetricTracker

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
    return MetricTracker("loss", metric_ftns=[accuracy, macro, top_k])


def feed(tracker: MetricTracker, batches: list[tuple[Tensor, Tensor]]) -> None:
    """Give the tracker batches as the trainer does."""
    for logits, labels in batches:
        tracker.update("loss", F.cross_entropy(logits, labels), n=len(labels))
        tracker.update_metrics(logits, labels, n=len(labels))


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
        "top_k": sum(y in row.topk(2).indices for row, y in zip(LOGITS, LABELS)) / len(LABELS),
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
    train.update_metrics(torch.zeros(2), torch.ones(2), n=2)
    valid.update_metrics(torch.zeros(2), torch.full((2,), 3.0), n=2)
    assert (train.result(), valid.result(), metric.update_called) == ({"mse": 1.0}, {"mse": 9.0}, False)


def test_metrics_build_no_graph() -> None:
    tracker = MetricTracker(metric_ftns=[F.mse_loss, named(MeanSquaredError(), "module")])
    tracker.update_metrics(torch.ones(4, requires_grad=True), torch.zeros(4), n=4)
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
    first.update_metrics(scores[:30], labels[:30], n=30)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    second.update_metrics(scores[30:], labels[30:], n=71)
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
    tracker.update_metrics(outputs, torch.zeros(200_000, dtype=torch.int64), n=200_000)
    del outputs
    assert reference() is None


# Metrics that are more than a number.


def errors(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean error of each column: a vector."""
    return (outputs - targets).abs().mean(dim=0)


def outer(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean of the products of any two columns: a matrix."""
    return (outputs.unsqueeze(1) * outputs.unsqueeze(2)).mean(dim=0)


class Extremes(Metric):
    """Two values by name, one of which is a vector."""

    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(2), dist_reduce_fx="sum")

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        self.total += (outputs - targets).sum(dim=0)

    def compute(self) -> dict[str, Tensor]:
        return {"sum": self.total.sum(), "columns": self.total}


VALUES = torch.arange(12.0).reshape(6, 2)


def feed_values(tracker: MetricTracker, batch_size: int) -> dict[str, float]:
    """Compare VALUES with zeros in batches; return the result."""
    for part in VALUES.split(batch_size):
        tracker.update_metrics(part, torch.zeros_like(part), n=len(part))
    return tracker.result()


@pytest.mark.parametrize("batch_size", [1, 4, 6])
def test_a_vector_gives_a_scalar_for_each_element(batch_size: int) -> None:
    assert feed_values(MetricTracker(metric_ftns=[errors]), batch_size) == {"errors/0": 5.0, "errors/1": 6.0}


@pytest.mark.parametrize("batch_size", [1, 4, 6])
def test_a_dict_gives_a_scalar_for_each_key(batch_size: int) -> None:
    tracker = MetricTracker(metric_ftns=[named(Extremes(), "sums")])
    assert feed_values(tracker, batch_size) == {"sums/sum": 66.0, "sums/columns/0": 30.0, "sums/columns/1": 36.0}


@pytest.mark.parametrize("batch_size", [1, 50])
def test_a_matrix_is_set_aside(batch_size: int) -> None:
    metric = named(MulticlassConfusionMatrix(num_classes=5), "confusion")
    tracker = MetricTracker(metric_ftns=[accuracy, metric])
    for logits, labels in batches_of(batch_size):
        tracker.update_metrics(logits, labels, n=len(labels))
    assert list(tracker.result()) == ["accuracy"]
    assert torch.equal(tracker.matrices["confusion"], MulticlassConfusionMatrix(num_classes=5)(LOGITS, LABELS))


@pytest.mark.parametrize("batch_size", [1, 4, 6])
def test_a_matrix_of_a_function_is_its_mean(batch_size: int) -> None:
    tracker = MetricTracker(metric_ftns=[outer])
    assert feed_values(tracker, batch_size) == {}
    torch.testing.assert_close(tracker.matrices["outer"], (VALUES.T @ VALUES).double() / 6)


@pytest.mark.parametrize("metric", [errors, outer, named(Extremes(), "sums")], ids=["vector", "matrix", "dict"])
@pytest.mark.parametrize("stop_after", [0, 1, 3])
def test_what_is_more_than_a_number_survives_a_stop_too(metric: Any, stop_after: int, tmp_path: Path) -> None:
    whole, first, second = (MetricTracker(metric_ftns=[metric]) for _ in range(3))
    for part in VALUES.split(2)[:stop_after]:
        first.update_metrics(part, torch.zeros_like(part), n=2)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for part in VALUES.split(2)[stop_after:]:
        second.update_metrics(part, torch.zeros_like(part), n=2)
    assert second.result() == feed_values(whole, 2)
    assert_equal(whole.matrices, second.matrices)


def test_a_vector_after_a_reset_begins_at_zero_again() -> None:
    tracker = MetricTracker(metric_ftns=[errors])
    feed_values(tracker, 2)
    tracker.reset()
    assert feed_values(tracker, 3) == {"errors/0": 5.0, "errors/1": 6.0}


@pytest.mark.parametrize("value", ["text", None, [1.0]])
def test_a_value_that_is_no_number_is_refused_with_its_name(value: Any) -> None:
    class Odd(Metric):
        def update(self, outputs: Tensor, targets: Tensor) -> None: ...

        def compute(self) -> Any:
            return value

    tracker = MetricTracker(metric_ftns=[named(Odd(), "odd")])
    tracker.update_metrics(torch.zeros(1), torch.zeros(1), n=1)
    with pytest.raises(ConfigError, match=r"^metrics: odd gives .*, not a number that can be logged$"):
        tracker.result()


def test_an_epoch_whose_result_was_read_is_not_gone_on_with(tmp_path: Path) -> None:
    """A checkpoint from between validation and the next epoch holds the means of the epoch that has ended."""
    first, second = (MetricTracker("loss", metric_ftns=[accuracy]) for _ in range(2))
    feed(first, batches_of(50))
    first.result()
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    second.reset()
    assert all(math.isnan(value) for value in second.result().values())


def test_only_the_first_reset_after_the_middle_of_an_epoch_keeps_it() -> None:
    first, second = MetricTracker("loss"), MetricTracker("loss")
    first.update("loss", 3.0)
    second.load_state_dict(first.state_dict())
    second.reset()
    assert second.avg("loss") == 3.0
    second.reset()
    assert math.isnan(second.avg("loss"))


@pytest.mark.parametrize(("key", "total"), [("loss", torch.zeros(7)), ("accuracy", torch.zeros(2, 2, 2, 2))])
def test_totals_that_are_none_of_this_runs_are_refused(key: str, total: Tensor) -> None:
    tracker = make_tracker()
    state = tracker.state_dict()
    with pytest.raises(ValueError, match=f"{key} is .*, not a value of this run"):
        tracker.load_state_dict(state | {"totals": state["totals"] | {key: total}})


def test_a_mean_over_nothing_changes_nothing() -> None:
    tracker = MetricTracker("loss")
    tracker.update("loss", 2.0, n=3)
    tracker.update("loss", math.nan, n=0)
    tracker.update("loss", torch.tensor(math.nan), n=0)
    assert tracker.avg("loss") == 2.0


def test_outputs_and_targets_are_any_nest_of_tensors() -> None:
    def difference(outputs: dict[str, Any], targets: tuple[Any, ...]) -> Tensor:
        assert outputs["names"] == ["a", "b"]
        assert not outputs["logits"].requires_grad
        return (outputs["logits"] - targets[0]).mean()

    tracker = MetricTracker(metric_ftns=[difference])
    outputs = {"logits": torch.ones(2, requires_grad=True), "names": ["a", "b"]}
    tracker.update_metrics(outputs, (torch.zeros(2), None), n=2)
    assert tracker.result() == {"difference": 1.0}
