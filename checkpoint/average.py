"""Averages the weights of several checkpoints into one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from checkpoint.file import epoch_of, find_checkpoint, load_checkpoint
from checkpoint.parts import eval_weights
from history.files import CONFIG, as_dict, read_optional, read_records
from history.text import finite
from utils.errors import CheckpointError, printable
from utils.nested import describe


def best_checkpoints(run_dir: Path, num_best: int) -> list[Path]:
    """Return the checkpoints of the `num_best` best epochs of a run, the best first, as its trainer.monitor says.

    Their values are those of metrics.jsonl. Raises CheckpointError where monitor is off, or there are fewer.
    """
    trainer = as_dict(read_optional(run_dir / CONFIG).get("trainer"))
    mode, _, metric = str(trainer.get("monitor", "off")).partition(" ")
    if mode == "off":
        raise CheckpointError(f"{run_dir}: trainer.monitor is off, so no epoch is the best; name the files")
    epochs = [record for record in read_records(run_dir) if record.get("kind") == "epoch"]
    values = {record.get("epoch"): finite(record.get(metric)) for record in epochs}
    paths = {epoch: path for path in run_dir.iterdir() if values.get(epoch := epoch_of(path)) is not None}
    if len(paths) < num_best:
        what = f"only {len(paths)} of its epochs have a checkpoint; a run keeps its trainer.keep_best best ones"
        raise CheckpointError(f"{run_dir}: --best {num_best}, but {what}")
    sign = -1 if mode == "max" else 1
    ranked = sorted(paths, key=lambda epoch: (sign * (values[epoch] or 0.0), epoch))
    return [paths[epoch] for epoch in ranked[:num_best]]


def average_checkpoints(paths: Sequence[Path]) -> dict[str, Any]:
    """Return a checkpoint whose weights are the mean of those in `paths`, which test.py and train.py -c -r take.

    Of each, the weights are those that are evaluated: of an average (EMA) where there is one. Floating tensors are
    averaged in float64; integers, such as counts, are those of the first. Raises CheckpointError where names, shapes
    or dtypes differ.

    Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima and Better Generalization", of one run; Wortsman et
    al. 2022, "Model soups", of several.
    """
    first = load_checkpoint(paths[0])
    weights = eval_weights(first)
    sums = {name: value.to(_wide(value), copy=True) for name, value in weights.items() if _is_averaged(value)}
    for path in paths[1:]:
        others = eval_weights(load_checkpoint(path))
        if problems := list(_differences(weights, others)):
            more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
            raise CheckpointError(f"{path}: is not like {paths[0]}: {'; '.join(problems[:3])}{more}")
        for name in sums:
            sums[name] += others[name]
    means = {name: (total / len(paths)).to(weights[name].dtype) for name, total in sums.items()}
    kept = ("epoch", "position", "config", "facts", "environment")
    return {key: first[key] for key in kept} | {
        "model": {**weights, **means},
        "averaged": [str(path) for path in paths],
    }


def chosen_checkpoints(names: Sequence[str], num_best: int | None, prefer: str) -> list[Path]:
    """Return the checkpoints that are meant: of a run directory the `num_best` best, or that called `prefer`.

    Raises CheckpointError.
    """
    paths = []
    for name in names:
        if num_best is not None and Path(name).is_dir():
            paths += best_checkpoints(Path(name), num_best)
        else:
            paths.append(find_checkpoint(name, prefer))
    return paths


def _is_averaged(value: Any) -> bool:
    return isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())


def _wide(value: Tensor) -> torch.dtype:
    return torch.complex128 if value.is_complex() else torch.float64


def _differences(weights: dict[str, Any], others: dict[str, Any]) -> Iterator[str]:
    for name in sorted({*weights, *others}):
        one, other = (describe(state[name]) if name in state else "missing" for state in (weights, others))
        if one != other:
            yield f"{printable(name)} is {other}, not {one}"
