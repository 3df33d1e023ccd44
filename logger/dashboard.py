"""What TensorBoard's pages Custom Scalars, HParams and Text show of a run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard.summary import hparams

from history.files import read_diff, read_processes

MAX_TEXT = 250  # characters of a hyperparameter
NOT_COMPARED = re.compile(
    r"[$_].*|name|tag|n_gpu|device|data_loader\.args\.(data_dir|path|num_workers)|optimizer\.args\.fused|"
    r"trainer\.(save_|keep_|log_|verbosity|tensorboard|monitor|process_timeout).*"
)
STEP_CHARTS = {
    "optimization": {
        "loss of a step": r"step/loss$",
        "learning rate": r"step/lr/group\d+$",
        "gradient norm": r"step/grad_norm$",
        "update-to-weight ratio": r"step/update_ratio$",
    },
    "speed": {
        "samples per second": r"perf/(step/)?samples_per_sec$",
        "share of the time waiting for data": r"perf/(step/)?data_wait$",
        "memory in GiB": r"perf/(host|device)_memory_gib$",
    },
}


def layout(names: Iterable[str], has_steps: bool) -> dict[str, dict[str, list[Any]]]:
    """Return the layout of Custom Scalars, whose tags are patterns: training and validation of a metric in one chart.

    `names` are those of an epoch's values; `has_steps`: whether the trainer logs steps.
    """
    metrics = dict.fromkeys(name.removeprefix("val_") for name in names if not name.startswith(("lr/", "perf/")))
    charts = {name: ["Multiline", [f"{re.escape(name)}/(train|valid)$"]] for name in metrics}
    steps = {title: {name: ["Multiline", [tag]] for name, tag in page.items()} for title, page in STEP_CHARTS.items()}
    return {"training and validation": charts} | (steps if has_steps else {})


def hyperparameters(config: Mapping[str, Any]) -> dict[str, float | str | bool]:
    """Return what of a config, as `utils.nested.flatten` gives it, runs are compared by: types, arguments, trainer.

    Lists become JSON; None, long texts, and where files lie, are left out.
    """
    found: dict[str, float | str | bool] = {}
    for key, value in config.items():
        value = json.dumps(value) if isinstance(value, list | dict) else value
        is_short = isinstance(value, bool | int | float) or (isinstance(value, str) and 0 < len(value) <= MAX_TEXT)
        if is_short and not NOT_COMPARED.fullmatch(key):
            found[key] = value
    return found


def hparam_summaries(values: dict[str, float | str | bool], tags: Iterable[str]) -> tuple[Summary, Summary, Summary]:
    """Return what HParams reads: the experiment, the start and the end of a session.

    To be written into the run itself, whose last values of the curves `tags` are the metrics; torch's `add_hparams`
    makes another run for them.
    """
    experiment, start, end = hparams(values, dict.fromkeys(tags, 0.0))
    return experiment, start, end


def code_and_environment(run_dir: Path, environment: Mapping[str, Any]) -> dict[str, str]:
    """Return as Markdown what this process runs on, and where it is recorded, how its code differs from the commit."""
    processes = read_processes(run_dir)
    process = processes[-1] if processes else dict(environment)
    texts = {"environment": fenced(json.dumps(process, indent=4, default=str), "json")}
    if diff := read_diff(run_dir, process):
        texts["git_diff"] = fenced(diff, "diff")
    return texts


def fenced(text: str, language: str) -> str:
    """Return `text` as a block of code."""
    return f"```{language}\n{text.replace('```', '` ` `')}\n```"
