"""What a model card says of a run, a model and its data."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from history.files import TEST, as_dict, read_optional, read_processes

PROBABILITIES = {
    "logits": "softmax",
    "log-probabilities": "softmax",  # of log-probabilities it is exp
    "binary-logits": "sigmoid",
    "binary-probabilities": "identity",
}
"""What makes probabilities of outputs, by their kind (see prediction/meaning.py); other outputs are values."""


def about_run(checkpoint: Path) -> dict[str, Any]:
    """Return what the directory of `checkpoint` says: the run's name, test.json, git and libraries of its last process.

    What it does not say is empty.
    """
    run_dir = checkpoint.absolute().parent
    last = (read_processes(run_dir) or [{}])[-1]
    about = {"run": run_dir.name, "checkpoint": checkpoint.name, "test": read_optional(run_dir / TEST)}
    return about | {"git": as_dict(last.get("git")), "libraries": last.get("libraries") or {}}


def about_outputs(kind: str, outputs: Sequence[Mapping[str, Any]], classes: Sequence[str] | None) -> dict[str, Any]:
    """Return what makes probabilities of the `outputs`, which are of a `kind`, and the names of their classes.

    Without names, classes are numbered.
    """
    function = PROBABILITIES.get(kind)
    shape = outputs[0]["shape"]
    if classes is None and function == "softmax" and len(shape) == 2:
        classes = [str(i) for i in range(shape[1])]
    return {"probabilities": function, "classes": classes if function else None}


def about_data(data_loader: Any, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the loader's class says of its batches, the columns of a table's features, and names of classes.

    The names are the fact `class_names`, or else `classes` of the dataset, as torchvision has them.
    """
    classes = facts.get("class_names") or getattr(data_loader.dataset, "classes", None)
    return {
        "data": " ".join((inspect.getdoc(type(data_loader)) or "").partition("\n\n")[0].split()),
        "columns": list(getattr(data_loader, "features", None) or []),
        "classes": [str(name) for name in classes] if classes else None,
    }
