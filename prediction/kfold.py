"""k-fold cross-validation: an ordinary run for each fold, and together a table and predictions for all samples."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from base import BaseTrainer, counted
from checkpoint.file import checkpoint_files, find_checkpoint, load_checkpoint
from checkpoint.run_dir import make_new_dir, saved_config
from checkpoint.run_status import read_status
from logger import close_logging, setup_logging
from parse_config import ConfigParser
from prediction.loading import load_run
from prediction.meaning import Meaning, kind_of
from prediction.output_file import OutputFile
from speed import input_format, prefetch
from utils import ConfigError, read_json, write_json, writing_to
from utils.file_lock import file_lock
from utils.nested import flatten

RESULT, PREDICTIONS = "kfold.json", "oof.csv"
DONE = ("completed", "early_stopped")


def train_folds(
    config: ConfigParser,
    num_folds: int,
    build_trainer: Callable[[ConfigParser], BaseTrainer],
    run_batch: Callable[..., Any],
) -> Path:
    """Train a run for each fold, one after the other; return the directory of what they give together.

    With --resume-latest the newest such directory goes on: finished folds are left as they are, an unfinished one
    resumes exactly. Raises UserErrors.
    """
    folder = _folder(config, num_folds)
    with file_lock(folder / ".lock", on_wait=lambda: print(f"{folder}: waiting for another process")):
        runs = []
        for number in range(1, num_folds + 1):
            run = _unfinished(config, folder, number, num_folds)
            if isinstance(run, ConfigParser):
                print(f"fold {number} of {num_folds}")
                build_trainer(run).train()
                close_logging()  # of this run: its log is not the next one's
                setup_logging()
                run = run.save_dir
            runs.append(run)
        write_json(read_json(folder / RESULT) | _summary(runs), folder / RESULT)
        with OutputFile(folder / PREDICTIONS) as output:
            output.write(_out_of_fold(runs, run_batch))
    return folder


def table(folder: Path) -> list[str]:
    """Return the lines of a table of the folds' values, their means and deviations."""
    metrics = read_json(folder / RESULT)["metrics"]
    width = max(len(name) for name in metrics)
    lines = []
    for name, found in metrics.items():
        values = "  ".join(f"{value:.4f}" for value in found["values"])
        lines.append(f"{name:{width}}  {found['mean']:.4f} ± {found['std']:.4f}  ({values})")
    return [*lines, f"{folder}: {RESULT}, {PREDICTIONS}"]


def _folder(config: ConfigParser, num_folds: int) -> Path:
    """Return the directory to go on with, or a new one. Raises ConfigError where its runs had another config."""
    asked: dict[str, Any] = {"folds": num_folds, "config": deepcopy(config.config)}
    experiment = config.save_dir.parent
    if config.goes_on:
        there = sorted(experiment.glob(f"kfold{num_folds}-*/{RESULT}"), key=lambda path: path.stat().st_mtime_ns)
        if there:
            saved = read_json(there[-1])["config"]
            before, now = flatten(saved), flatten(asked["config"])
            changed = sorted(key for key in {**before, **now} if before.get(key) != now.get(key))
            if changed:
                raise ConfigError(f"{there[-1]}: its config had another {', '.join(changed)}")
            return there[-1].parent
    with writing_to(experiment):
        folder = make_new_dir(experiment / f"kfold{num_folds}-{config.save_dir.name}")
        write_json(asked, folder / RESULT)
    return folder


def _unfinished(config: ConfigParser, folder: Path, number: int, num_folds: int) -> ConfigParser | Path:
    """Return the directory of a fold's run that has ended, or the config of one to go on with or to begin."""
    name = f"{folder.name}-fold{number}"
    for run_dir in sorted(folder.parent.glob(f"{name}*")):
        if run_dir.name.removeprefix(name)[:1] not in ("", "-") or not checkpoint_files(run_dir):
            continue  # of fold 10, or killed before its first save
        if read_status(run_dir).get("status") in DONE:
            return run_dir
        return _trusting(ConfigParser(saved_config(run_dir), find_checkpoint(run_dir), slots=config.slots), config)
    changes = {"data_loader;args;fold": f"{number}/{num_folds}", "data_loader;args;validation_split": 0}
    return _trusting(ConfigParser(deepcopy(config.config), None, changes, name, slots=config.slots), config)


def _trusting(fold: ConfigParser, config: ConfigParser) -> ConfigParser:
    fold.trusted_repos = config.trusted_repos
    return fold


def _summary(runs: list[Path]) -> dict[str, Any]:
    """Return what validation gave in the epoch of each fold's best checkpoint, with mean and standard deviation."""
    logs = [load_checkpoint(find_checkpoint(run, "model_best.pth"))["log"] for run in runs]
    metrics = {}
    for name in (name for name in logs[0] if name.startswith("val_")):
        values = [log[name] for log in logs]
        metrics[name] = {"values": values, "mean": statistics.fmean(values), "std": statistics.stdev(values)}
    return {"runs": [run.name for run in runs], "metrics": metrics}


@torch.inference_mode()
def _out_of_fold(runs: list[Path], run_batch: Callable[..., Any]) -> pa.Table:
    """Return, for every sample, its index, its fold, its targets, and what the fold's model predicts for it."""
    tables = []
    for number, run in enumerate(runs, start=1):
        loaded = load_run(run)
        loader = loaded.config.init_obj("data_loader")
        inputs = loader.new_inputs(loaded.config.init_ftn("data_loader").keywords, loaded.facts)
        meaning = Meaning(kind_of(loaded.config["loss"]), inputs.target_names, inputs.class_names)
        criterion = loaded.config.init_obj("loss")
        criterion = criterion.to(loaded.device) if isinstance(criterion, nn.Module) else criterion
        outputs, targets = [], []
        for batch, _ in prefetch(counted(loader.split_validation()), loaded.device, input_format(loaded.model)):
            result = run_batch(loaded.model, criterion, batch)
            outputs.append(result.outputs)
            targets.append(result.targets)
        found, wanted = meaning.columns(torch.cat(outputs)), meaning.target_columns(torch.cat(targets))
        rows = loader.valid_indices().numpy()
        if len(rows) != sum(map(len, outputs)):
            raise ConfigError(f"{PREDICTIONS}: run_batch in trainer/batch.py gives outputs for some samples alone")
        known = {"row": rows, "fold": np.full(len(rows), number)} | wanted
        named = {f"{name}_predicted" if name in known else name: column for name, column in found.items()}
        tables.append(pa.table({name: pa.array(column) for name, column in {**known, **named}.items()}))
    return pa.concat_tables(tables).sort_by("row")
