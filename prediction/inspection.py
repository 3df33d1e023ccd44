"""What a model does on a table or on classes, as figures: curves, error by each column's values, importances."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from base import Weight
from logger.curves import bars, curves, ranking
from logger.validation import output_figures, softmax, without_ignored
from utils import ConfigError, to_device

MAX_SAMPLES, MAX_COLUMNS, MAX_CLASSES = 10_000, 40, 10
NUM_BINS, NUM_REPEATS, CHUNK = 10, 5, 4096
Array = NDArray[Any]


class BatchFunctions(Protocol):
    """What trainer/batch.py has: the module itself is given."""

    def unpack(self, batch: Any) -> tuple[Any, Any]: ...  # noqa: D102
    def run_batch(self, model: nn.Module, criterion: Callable[..., Tensor], batch: Any) -> Any: ...  # noqa: D102
    def batch_weight(self, criterion: Callable[..., Tensor], batch: Any, num_samples: int) -> Weight: ...  # noqa: D102


class Column(NamedTuple):
    """A column of a table: its name, its places in the inputs (N, F), and the labels of its codes 1, 2, and so on."""

    name: str
    start: int
    width: int = 1
    labels: Sequence[str] = ()


class Seen(NamedTuple):
    """The first samples of a split: what went in, what came out, what should have."""

    inputs: Any
    outputs: Tensor  # (N, C) float
    targets: Tensor  # (N,) int64 classes, or (N, C) float


def columns_of(data_loader: Any, facts: Mapping[str, Any]) -> list[Column]:
    """Return the columns of the inputs: of a TableDataLoader's facts, or else of its `features`; [] of none."""
    table = facts.get("table")
    if table is None:
        return [Column(name, i) for i, name in enumerate(getattr(data_loader, "features", None) or [])]
    columns, start = [], 0
    for column in table["columns"]:
        width = len(column["parts"]) if column["kind"] == "date" else 1
        columns.append(Column(column["name"], start, width, column["labels"]))
        start += width
    return columns


@torch.no_grad()
def draw_figures(
    model: nn.Module,
    criterion: Callable[..., Tensor],
    batches: Iterable[Any],
    columns: Sequence[Column],
    device: torch.device,
    how: BatchFunctions,
) -> dict[str, Image.Image]:
    """Return figures, by name, of the first 10,000 samples of `batches`.

    Of a classifier: confusion matrix, recall and precision per class, ROC and precision-recall curves. Of a regression:
    predicted against true, residuals. With `columns`, of inputs (N, F): error by the values of each, and permutation
    importance. Raises ConfigError where outputs and targets are neither's.
    """
    model.eval()
    seen = _seen(model, criterion, batches, device, how)
    drawn = dict(_of_outputs(seen))
    is_table = isinstance(seen.inputs, Tensor) and seen.inputs.ndim == 2
    if is_table and columns and sum(column.width for column in columns) == seen.inputs.shape[1]:
        importances = permutation_importance(model, criterion, seen, columns, how)
        drawn |= dict(_of_columns(seen, columns, importances))
    return drawn


def permutation_importance(
    model: nn.Module, criterion: Callable[..., Tensor], seen: Seen, columns: Sequence[Column], how: BatchFunctions
) -> Array:
    """(columns, repeats) float64: by how much the mean loss rises when the values of a column are shuffled.

    Breiman 2001, "Random Forests", section 10; here with the loss. Columns that say the same share what they are worth.
    """
    generator = torch.Generator().manual_seed(0)
    mean_loss = partial(_mean_loss, model, criterion, how)
    whole = mean_loss(seen.inputs, seen.targets)
    rises = np.zeros((len(columns), NUM_REPEATS))
    for row, column in enumerate(columns):
        places = slice(column.start, column.start + column.width)
        for repeat in range(NUM_REPEATS):
            order = torch.randperm(len(seen.inputs), generator=generator).to(seen.inputs.device)
            shuffled = seen.inputs.clone()
            shuffled[:, places] = seen.inputs[order, places]
            rises[row, repeat] = mean_loss(shuffled, seen.targets) - whole
    return rises


def _mean_loss(
    model: nn.Module, criterion: Callable[..., Tensor], how: BatchFunctions, inputs: Tensor, targets: Tensor
) -> float:
    losses, weights = 0.0, 0.0
    for batch in zip(inputs.split(CHUNK), targets.split(CHUNK)):
        weight = float(how.batch_weight(criterion, batch, len(batch[0])))
        losses += float(how.run_batch(model, criterion, batch).loss) * weight
        weights += weight
    return losses / weights


def _seen(
    model: nn.Module,
    criterion: Callable[..., Tensor],
    batches: Iterable[Any],
    device: torch.device,
    how: BatchFunctions,
) -> Seen:
    parts: list[tuple[Any, Tensor, Tensor]] = []
    num_samples = 0
    for batch in batches:
        batch = to_device(batch, device)
        _, outputs, targets, _ = how.run_batch(model, criterion, batch)
        is_tensors = isinstance(outputs, Tensor) and isinstance(targets, Tensor)
        is_classes = is_tensors and outputs.ndim == 2 and targets.ndim == 1 and not targets.is_floating_point()
        if not is_classes and not (is_tensors and outputs.shape == targets.shape and outputs.ndim == 2):
            raise ConfigError("--figures: wanted: outputs (N, C) and classes (N,), or outputs and targets both (N, C)")
        parts.append((how.unpack(batch)[0], outputs, targets))
        num_samples += len(outputs)
        if num_samples >= MAX_SAMPLES:
            break
    inputs = [part[0] for part in parts]
    is_alike = all(isinstance(part, Tensor) and part.ndim == 2 for part in inputs)
    outputs, targets = (torch.cat([part[i] for part in parts]) for i in (1, 2))
    return Seen(torch.cat(inputs) if is_alike else None, outputs, targets)


def _of_outputs(seen: Seen) -> Iterator[tuple[str, Image.Image]]:
    outputs, targets = without_ignored(seen.outputs.float().cpu().numpy(), seen.targets.cpu().numpy())
    yield from output_figures(outputs, targets)
    if targets.ndim == 2:
        return
    from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_curve

    num_classes = outputs.shape[1]
    probabilities, roc, precision_recall = softmax(outputs), [], []
    for index in [1] if num_classes == 2 else range(min(num_classes, MAX_CLASSES)):
        is_class, scores = targets == index, probabilities[:, index]
        if is_class.all() or not is_class.any():
            continue  # no curve is defined
        false_rate, true_rate, _ = roc_curve(is_class, scores)
        roc.append((f"{index}: area {auc(false_rate, true_rate):.4f}", false_rate, true_rate))
        precision, recall, _ = precision_recall_curve(is_class, scores)
        name = f"{index}: mean {average_precision_score(is_class, scores):.4f}"
        precision_recall.append((name, recall, precision))
    yield "roc", curves("ROC: each class against the others", roc, "false positive rate", "true positive rate", 0.7)
    yield "precision_recall", curves("precision and recall", precision_recall, "recall", "precision", 0.05)


def _of_columns(seen: Seen, columns: Sequence[Column], importances: Array) -> Iterator[tuple[str, Image.Image]]:
    order = np.argsort(-importances.mean(axis=1), kind="stable")[:MAX_COLUMNS]
    names, means, deviations = [columns[i].name for i in order], importances.mean(axis=1), importances.std(axis=1)
    title = "permutation importance" + (f" (the highest {MAX_COLUMNS})" if len(columns) > MAX_COLUMNS else "")
    yield "importance", ranking(title, names, means[order], deviations[order], "rise of the loss when shuffled")
    errors, what = _errors(seen)
    for i in order:
        column = columns[i]
        values = seen.inputs[:, column.start].cpu().numpy()
        labels, groups = grouped(values, column.labels)
        counts = np.bincount(groups, minlength=len(labels))
        shown = np.flatnonzero(counts)
        means_of = np.bincount(groups, errors, minlength=len(labels))[shown] / counts[shown]
        name = re.sub(r"[^A-Za-z0-9]+", "_", column.name)[:40]
        title = f"error by {column.name[:40]}"
        shown_labels = [labels[place] for place in shown]
        yield f"error_by_{i}_{name}", bars(title, shown_labels, means_of, counts[shown], column.name[:40], what)


def _errors(seen: Seen) -> tuple[Array, str]:
    """(N,) float64: of each sample 1 where its class is wrong, or the mean absolute error of its values."""
    if seen.targets.ndim == 1:
        return (seen.outputs.argmax(dim=1) != seen.targets).double().cpu().numpy(), "share that is wrong"
    return (seen.outputs - seen.targets).abs().double().mean(dim=1).cpu().numpy(), "mean absolute error"


def grouped(values: Array, labels: Sequence[str]) -> tuple[list[str], NDArray[np.int64]]:
    """Return the names of the groups of `values`, (N,) float, and the group of each, (N,).

    A category has a group for each label and one for others; at most ten different numbers one each, more of them ten
    bins of as many samples; what is missing (NaN) a group of its own.
    """
    is_missing = np.isnan(values)
    present = values[~is_missing]
    groups = np.empty(len(values), np.int64)
    if labels:
        names = ["other", *labels]
        groups[~is_missing] = present.astype(np.int64)
    else:
        starts = np.unique(present)
        if len(starts) > NUM_BINS:
            starts = np.unique(np.quantile(present, np.linspace(0, 1, NUM_BINS + 1)))[:-1]
        names = [f"{start:.4g}" for start in starts]
        groups[~is_missing] = np.searchsorted(starts, present, side="right") - 1
    groups[is_missing] = len(names)
    return [*names, "missing"], groups
