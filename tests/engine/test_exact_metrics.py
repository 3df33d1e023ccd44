"""Metrics over any batches equal scikit-learn, SciPy and float64 NumPy on the same tensors, wherever these lie."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchmetrics.regression
from scipy import stats
from sklearn import metrics as sk
from torch import Tensor
from torchmetrics import classification, regression

from helpers import assert_equal
from utils import MetricTracker

NUM_SAMPLES, NUM_CLASSES, IGNORED = 131, 4, -1
BATCH_SIZES = [1, 7, 64, NUM_SAMPLES]
OFFSETS = [0, 2_000, 20_000, 1_000_000]
SPREADS = [(offset, 3.0) for offset in OFFSETS] + [(0, 1e-4), (0, 1e6)]
GENERATOR = torch.Generator().manual_seed(0)

pytestmark = pytest.mark.filterwarnings("ignore:.*will save all")

Array = np.ndarray[Any, Any]
Reference = Callable[[Array, Array], Any]
Pair = tuple[Tensor, Tensor]


def named(metric: Any) -> Any:
    """Give a torchmetrics object the name that a config gives it."""
    metric.__name__ = "metric"
    return metric


def values_over_batches(metric: Any, data: Pair, batch_size: int) -> list[float]:
    """Return what a tracker says of the data in batches, the last of which may be smaller."""
    tracker = MetricTracker(metric_ftns=[metric])
    for outputs, targets in zip(*(tensor.split(batch_size) for tensor in data), strict=True):
        tracker.update_metrics(outputs, targets, n=len(targets))
    numbers = list(tracker.result().values())
    return numbers + [value for matrix in tracker.matrices.values() for value in matrix.flatten().tolist()]


# Regression.


def regression_data(offset: float, *shape: int, spread: float = 3.0) -> Pair:
    """Return outputs and targets of a spread around `offset`, as float32."""
    targets = spread * torch.randn(NUM_SAMPLES, *shape, generator=GENERATOR) + offset
    return targets + spread / 3 * torch.randn(NUM_SAMPLES, *shape, generator=GENERATOR), targets


def concordance(o: Array, t: Array) -> Any:
    covariance = ((o - o.mean()) * (t - t.mean())).sum() / (len(t) - 1)
    return 2 * covariance / (o.var(ddof=1) + t.var(ddof=1) + (o.mean() - t.mean()) ** 2)


def rmse(o: Array, t: Array) -> Any:
    return np.sqrt(np.square(o - t).mean())


def by_column(reference: Reference) -> Reference:
    return lambda o, t: [reference(o[:, i], t[:, i]) for i in range(o.shape[1])]


SHIFTED: dict[str, tuple[Callable[[], Any], Reference, tuple[int, ...]]] = {
    "R2Score": (regression.R2Score, lambda o, t: sk.r2_score(t, o), ()),
    "R2Score, outputs": (
        lambda: regression.R2Score(multioutput="raw_values"), by_column(lambda o, t: sk.r2_score(t, o)), (3,),
    ),
    "ExplainedVariance": (regression.ExplainedVariance, lambda o, t: sk.explained_variance_score(t, o), ()),
    "ExplainedVariance, outputs": (
        regression.ExplainedVariance, lambda o, t: sk.explained_variance_score(t, o), (3,),
    ),
    "MeanSquaredError": (regression.MeanSquaredError, lambda o, t: sk.mean_squared_error(t, o), ()),
    "MeanSquaredError, root": (lambda: regression.MeanSquaredError(squared=False), rmse, (1,)),
    "MeanAbsoluteError": (regression.MeanAbsoluteError, lambda o, t: sk.mean_absolute_error(t, o), ()),
    "MinkowskiDistance": (
        lambda: regression.MinkowskiDistance(3), lambda o, t: (np.abs(o - t) ** 3).sum() ** (1 / 3), (),
    ),
    "LogCoshError": (regression.LogCoshError, lambda o, t: np.log(np.cosh(o - t)).mean(), ()),
    "PearsonCorrCoef": (regression.PearsonCorrCoef, lambda o, t: stats.pearsonr(o, t).statistic, ()),
    "PearsonCorrCoef, outputs": (
        lambda: regression.PearsonCorrCoef(3), by_column(lambda o, t: stats.pearsonr(o, t).statistic), (3,),
    ),
    "ConcordanceCorrCoef": (regression.ConcordanceCorrCoef, concordance, ()),
    "SpearmanCorrCoef": (regression.SpearmanCorrCoef, lambda o, t: stats.spearmanr(o, t).statistic, ()),
    "KendallRankCorrCoef": (regression.KendallRankCorrCoef, lambda o, t: stats.kendalltau(o, t).statistic, ()),
    "RelativeSquaredError": (regression.RelativeSquaredError, lambda o, t: 1 - sk.r2_score(t, o), ()),
    "TweedieDevianceScore": (regression.TweedieDevianceScore, lambda o, t: sk.mean_tweedie_deviance(t, o, power=0), ()),
    "NormalizedRootMeanSquaredError, std": (
        lambda: regression.NormalizedRootMeanSquaredError("std"), lambda o, t: rmse(o, t) / t.std(), (),
    ),
    "NormalizedRootMeanSquaredError, range": (
        lambda: regression.NormalizedRootMeanSquaredError("range"), lambda o, t: rmse(o, t) / np.ptp(t), (),
    ),
}  # fmt: skip
"""Metrics that stay the same when outputs and targets are shifted alike."""


@pytest.mark.parametrize(("offset", "spread"), SPREADS)
@pytest.mark.parametrize("name", SHIFTED)
def test_a_metric_that_is_shifted_with_its_targets(name: str, offset: int, spread: float) -> None:
    if name == "LogCoshError" and spread > 100:
        pytest.skip("torchmetrics' overflows at differences of 710")
    make, reference, shape = SHIFTED[name]
    data = regression_data(offset, *shape, spread=spread)
    expected = np.ravel(reference(*(tensor.double().numpy() for tensor in data))).tolist()
    for batch_size in BATCH_SIZES:
        assert values_over_batches(named(make()), data, batch_size) == pytest.approx(expected, rel=1e-6)


def simplex(*shape: int) -> Pair:
    """Return two batches of distributions."""
    outputs, targets = (torch.randn(NUM_SAMPLES, *shape, generator=GENERATOR).softmax(1) for _ in range(2))
    return outputs, targets


def positive(offset: float) -> Pair:
    """Return positive outputs and targets."""
    outputs, targets = regression_data(offset)
    return outputs.abs() + 1, targets.abs() + 1


def kl(p: Array, q: Array) -> Any:
    return stats.entropy(p, q, axis=1).mean()


def crps(o: Array, t: Array) -> Any:
    """Of an ensemble of forecasts (N, M), against targets (N,)."""
    spread = np.abs(o[:, :, None] - o[:, None, :]).mean((1, 2)) / 2
    return (np.abs(o - t[:, None]).mean(1) - spread).mean()


def success(o: Array, t: Array) -> Any:
    hits, either = ((o >= 2.5) & (t >= 2.5)).sum(), ((o >= 2.5) | (t >= 2.5)).sum()
    return hits / either


ensemble = torch.randn(NUM_SAMPLES, 5, generator=GENERATOR), torch.randn(NUM_SAMPLES, generator=GENERATOR)
OTHERS: dict[str, tuple[Callable[[], Any], Reference, list[Pair]]] = {
    "MeanAbsolutePercentageError": (
        regression.MeanAbsolutePercentageError,
        lambda o, t: sk.mean_absolute_percentage_error(t, o),
        [positive(offset) for offset in OFFSETS],
    ),
    "SymmetricMeanAbsolutePercentageError": (
        regression.SymmetricMeanAbsolutePercentageError,
        lambda o, t: (2 * np.abs(o - t) / (np.abs(o) + np.abs(t))).mean(),
        [positive(offset) for offset in OFFSETS],
    ),
    "WeightedMeanAbsolutePercentageError": (
        regression.WeightedMeanAbsolutePercentageError,
        lambda o, t: np.abs(o - t).sum() / np.abs(t).sum(),
        [positive(offset) for offset in OFFSETS],
    ),
    "MeanSquaredLogError": (
        regression.MeanSquaredLogError,
        lambda o, t: sk.mean_squared_log_error(t, o),
        [positive(offset) for offset in OFFSETS],
    ),
    "TweedieDevianceScore, Poisson": (
        lambda: regression.TweedieDevianceScore(1.0),
        lambda o, t: sk.mean_tweedie_deviance(t, o, power=1),
        [positive(offset) for offset in (0, 2_000)],
    ),
    "NormalizedRootMeanSquaredError, mean": (
        regression.NormalizedRootMeanSquaredError,
        lambda o, t: rmse(o, t) / t.mean(),
        [positive(offset) for offset in OFFSETS],
    ),
    "NormalizedRootMeanSquaredError, l2": (
        lambda: regression.NormalizedRootMeanSquaredError("l2"),
        lambda o, t: rmse(o, t) / np.sqrt(np.square(t).sum()),
        [positive(offset) for offset in OFFSETS],
    ),
    "CosineSimilarity": (
        lambda: regression.CosineSimilarity("mean"),
        lambda o, t: ((o * t).sum(1) / (np.linalg.norm(o, axis=1) * np.linalg.norm(t, axis=1))).mean(),
        [regression_data(offset, 3) for offset in OFFSETS],
    ),
    "KLDivergence": (regression.KLDivergence, kl, [simplex(4)]),
    "JensenShannonDivergence": (
        regression.JensenShannonDivergence,
        lambda p, q: (kl(p, (p + q) / 2) + kl(q, (p + q) / 2)) / 2,
        [simplex(4)],
    ),
    "ContinuousRankedProbabilityScore": (regression.ContinuousRankedProbabilityScore, crps, [ensemble]),
    "CriticalSuccessIndex": (lambda: regression.CriticalSuccessIndex(2.5), success, [positive(0)]),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_metric_that_depends_on_where_zero_is(name: str) -> None:
    make, reference, samples = OTHERS[name]
    for data in samples:
        expected = reference(*(tensor.double().numpy() for tensor in data))
        for batch_size in BATCH_SIZES:
            assert values_over_batches(named(make()), data, batch_size) == pytest.approx([expected], rel=1e-6)


def test_every_metric_of_torchmetrics_regression_is_tried() -> None:
    tried = {name.partition(",")[0] for name in [*SHIFTED, *OTHERS]}
    assert tried == set(torchmetrics.regression.__all__)


def test_counts_are_targets_too() -> None:
    targets = torch.randint(1_000_000, 1_000_010, (NUM_SAMPLES,), generator=GENERATOR)
    outputs = targets + torch.randn(NUM_SAMPLES, generator=GENERATOR)
    for metric, reference in ((regression.R2Score, sk.r2_score), (regression.MeanSquaredError, sk.mean_squared_error)):
        expected = reference(targets.numpy(), outputs.double().numpy())
        assert values_over_batches(named(metric()), (outputs, targets), 7) == pytest.approx([expected], rel=1e-6)


# Classification, with targets that are ignored.

LABELS = torch.randint(NUM_CLASSES, (NUM_SAMPLES,), generator=GENERATOR)
SCORES = (torch.randn(NUM_SAMPLES, NUM_CLASSES, generator=GENERATOR) + 2 * torch.eye(NUM_CLASSES)[LABELS]).softmax(1)
SOME_LABELS = torch.where(torch.rand(NUM_SAMPLES, generator=GENERATOR) < 0.3, IGNORED, LABELS)
SOME_LABELS[20:30] = IGNORED  # a whole batch of 7

CLASSES: dict[str, Reference] = {
    "Accuracy": lambda o, t: sk.balanced_accuracy_score(t, o.argmax(1)),
    "Precision": lambda o, t: sk.precision_score(t, o.argmax(1), average="macro"),
    "Recall": lambda o, t: sk.recall_score(t, o.argmax(1), average="macro"),
    "F1Score": lambda o, t: sk.f1_score(t, o.argmax(1), average="macro"),
    "JaccardIndex": lambda o, t: sk.jaccard_score(t, o.argmax(1), average="macro"),
    "MatthewsCorrCoef": lambda o, t: sk.matthews_corrcoef(t, o.argmax(1)),
    "CohenKappa": lambda o, t: sk.cohen_kappa_score(t, o.argmax(1)),
    "AUROC": lambda o, t: sk.roc_auc_score(t, o, multi_class="ovr"),
    "AveragePrecision": lambda o, t: sk.average_precision_score(np.eye(NUM_CLASSES)[t], o),
    "ConfusionMatrix": lambda o, t: sk.confusion_matrix(t, o.argmax(1)),
    "HingeLoss": lambda o, t: sk.hinge_loss(t, o),
}


@pytest.mark.parametrize("labels", [LABELS, SOME_LABELS], ids=["all", "some ignored"])
@pytest.mark.parametrize("name", CLASSES)
def test_a_metric_of_classes(name: str, labels: Tensor) -> None:
    if name == "HingeLoss" and labels is SOME_LABELS:
        pytest.skip("torchmetrics' fails on a batch of ignored targets alone")
    is_known = labels != IGNORED
    expected = np.ravel(CLASSES[name](SCORES[is_known].double().numpy(), labels[is_known].numpy())).tolist()
    for batch_size in BATCH_SIZES:
        metric = getattr(classification, f"Multiclass{name}")(NUM_CLASSES, ignore_index=IGNORED)
        assert values_over_batches(named(metric), (SCORES, labels), batch_size) == pytest.approx(expected, rel=1e-6)


# Functions, as the published template has them.


def mean_absolute_error(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).abs().mean()


def mean_of_squares(outputs: Tensor, targets: Tensor) -> Tensor:
    """A mean of large numbers, whose small part is what counts."""
    return (outputs.square() - targets.square()).mean()


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("function", [mean_absolute_error, mean_of_squares])
def test_a_function_of_floating_targets_is_as_exact(function: Any, offset: int) -> None:
    data = regression_data(offset, 2)
    expected = function(*(tensor.double() for tensor in data)).item()
    for batch_size in BATCH_SIZES:
        assert values_over_batches(function, data, batch_size) == pytest.approx([expected], rel=1e-6)


def test_a_function_with_weights_of_its_own_gets_what_the_model_gave() -> None:
    matrix = torch.randn(2, 2)
    data = regression_data(0, 2)

    def perceptual(outputs: Tensor, targets: Tensor) -> Tensor:
        return ((outputs @ matrix) - (targets @ matrix)).abs().mean()

    assert values_over_batches(perceptual, data, 7) == pytest.approx([perceptual(*data).item()], rel=1e-5)


def test_classes_cost_nothing_more() -> None:
    seen = []

    def identity(outputs: Tensor, targets: Tensor) -> float:
        seen.append((outputs, targets))
        return 0.0

    values_over_batches(identity, (SCORES, LABELS), NUM_SAMPLES)
    [(outputs, targets)] = seen
    assert outputs.dtype == torch.float32
    assert (outputs.data_ptr(), targets.data_ptr()) == (SCORES.data_ptr(), LABELS.data_ptr())


# The centre is a state.

CENTRED = [
    *("R2Score", "R2Score, outputs", "ExplainedVariance", "ExplainedVariance, outputs", "RelativeSquaredError"),
    *("PearsonCorrCoef", "PearsonCorrCoef, outputs", "ConcordanceCorrCoef"),
    *("NormalizedRootMeanSquaredError, std", "NormalizedRootMeanSquaredError, range"),
]


@pytest.mark.parametrize("name", [*SHIFTED, *OTHERS])
def test_the_metrics_whose_sums_would_cancel_are_centred(name: str) -> None:
    make = SHIFTED[name][0] if name in SHIFTED else OTHERS[name][0]
    state = MetricTracker(metric_ftns=[named(make())]).state_dict()["modules"]["metric"]["state"]
    assert ("centre" in state) == (name in CENTRED)


@pytest.mark.parametrize("name", CENTRED)
@pytest.mark.parametrize("stop_after", [0, 1, 4])
def test_an_epoch_goes_on_from_a_file_to_the_bit(name: str, stop_after: int, tmp_path: Path) -> None:
    make, _, shape = SHIFTED[name]
    whole, first, second = (MetricTracker(metric_ftns=[named(make())]) for _ in range(3))
    data = regression_data(20_000, *shape)
    batches = list(zip(*(tensor.split(20) for tensor in data), strict=True))
    for tracker, part in ((whole, batches), (first, batches[:stop_after])):
        for outputs, targets in part:
            tracker.update_metrics(outputs, targets, n=len(targets))
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for outputs, targets in batches[stop_after:]:
        second.update_metrics(outputs, targets, n=len(targets))
    assert_equal(second.state_dict(), whole.state_dict())
    assert second.result() == whole.result()


def test_each_epoch_has_a_centre_of_its_own() -> None:
    used, fresh = (MetricTracker(metric_ftns=[named(regression.R2Score())]) for _ in range(2))
    used.update_metrics(*regression_data(1_000_000), n=NUM_SAMPLES)
    used.result()
    used.reset()
    data = regression_data(-50)
    for tracker in (used, fresh):
        tracker.update_metrics(*data, n=NUM_SAMPLES)
    assert_equal(used.state_dict(), fresh.state_dict())


@pytest.mark.parametrize("name", CENTRED)
def test_sums_of_an_earlier_version_go_on_from_zero(name: str) -> None:
    make, reference, shape = SHIFTED[name]
    data = regression_data(0, *shape)
    (first, rest), (first_targets, rest_targets) = (tensor.split([50, NUM_SAMPLES - 50]) for tensor in data)
    old, tracker = make(), MetricTracker(metric_ftns=[named(make())])
    old.update(first, first_targets)  # as float32, without a centre
    state = tracker.state_dict()
    state["modules"]["metric"] = {"state": old.metric_state, "update_count": 1}
    tracker.load_state_dict(state | {"is_open": True})
    tracker.reset()  # of the epoch that goes on
    tracker.update_metrics(rest, rest_targets, n=len(rest))
    expected = np.ravel(reference(*(tensor.double().numpy() for tensor in data))).tolist()
    assert list(tracker.result().values()) == pytest.approx(expected, rel=1e-5)


def test_a_batch_of_nothing_is_not_the_first() -> None:
    tracker = MetricTracker(metric_ftns=[named(regression.R2Score()), mean_absolute_error])
    tracker.update_metrics(torch.zeros(0), torch.zeros(0), n=0)
    data = regression_data(2_000)
    tracker.update_metrics(*data, n=NUM_SAMPLES)
    expected = sk.r2_score(data[1].double(), data[0].double())
    assert tracker.result()["metric"] == pytest.approx(expected, rel=1e-6)


def test_without_float64_a_centre_keeps_what_float32_can(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on MPS, which has none."""
    monkeypatch.setattr(torch, "float64", torch.float32)
    for name in ("R2Score", "ExplainedVariance", "PearsonCorrCoef", "ConcordanceCorrCoef"):
        make, reference, _ = SHIFTED[name]
        data = regression_data(20_000)
        expected = reference(*(tensor.double().numpy() for tensor in data))
        assert values_over_batches(named(make()), data, 7) == pytest.approx([expected], rel=1e-4)
