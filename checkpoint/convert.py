"""Convert a checkpoint of the published template (2020), or weights alone, to one of this project.

python -m checkpoint.convert --trust OLD.pth NEW.pth
"""

from __future__ import annotations

import argparse
import codecs
import io
import json
import math
import pickle
import sys
import warnings
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from checkpoint.file import serialise
from utils.errors import CheckpointError, told_to_user, writing_to
from utils.files import write_atomic

PREFIX = "module."  # of every name in the weights of a model that was wrapped in DataParallel
NUMPY_SCALAR = np.float64(0).__reduce__()[0]
CALLABLE = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor"): torch._utils._rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    ("_codecs", "encode"): codecs.encode,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "scalar"): NUMPY_SCALAR,
    ("numpy._core.multiarray", "scalar"): NUMPY_SCALAR,
}
"""Everything that an old checkpoint can call. Storages are torch's own affair: it never looks them up here."""


class Inert(dict[Any, Any]):
    """Replaces every other class and function that an old checkpoint names, so that none is imported or called."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take the arguments of whatever was to be called, and do nothing."""

    def __setstate__(self, state: Any) -> None:
        vars(self).update(state if isinstance(state, dict) else {})


class InertPickle:
    """What torch.load needs of a module for pickles: one that reads tensors, plain data and `Inert`."""

    class Unpickler(pickle.Unpickler):
        """Imports nothing."""

        def find_class(self, module: str, name: str) -> Any:
            """Return what a name in the pickle means here."""
            return CALLABLE.get((module, name), Inert)

    @classmethod
    def load(cls, file: Any, **options: Any) -> Any:
        """Return the next object in `file`."""
        return cls.Unpickler(file, **options).load()


def convert(old: Path, new: Path) -> str:
    """Write the weights, epoch and config of `old` to `new`; return a line that says what was taken and what was not.

    `old` is a checkpoint of the published template, or any file of torch.save that has "state_dict" or is weights
    alone, as torch < 1.6 or a later torch writes it. Raises CheckpointError where it is none of these or `new` is
    there already, and RunDirError where `new` cannot be written; then there is no `new`.
    """
    if new.exists() or new.is_symlink():
        raise CheckpointError(f"{new}: is there already; nothing is overwritten")
    content = _load(old)
    info = content if isinstance(content, dict) and "state_dict" in content else {}
    weights = _weights(info.get("state_dict", content), old)
    epoch, best = info.get("epoch"), info.get("monitor_best")
    epoch = epoch if isinstance(epoch, int) and 0 <= epoch < 10**9 else 0
    best = float(best) if isinstance(best, float | np.floating) and math.isfinite(best) else None
    state = {
        "position": {"epoch": epoch + 1, "step_in_epoch": 0, "global_step": 0},
        "epoch": epoch,
        "model": weights,
        "log": {} if best is None else {"monitor_best": best},
        "config": _config(info.get("config")),
        "facts": {},
        "environment": {"converted_from": "the published template" if "arch" in info else "weights"},
    }
    with writing_to(new.parent):
        write_atomic(new, serialise(state))
    taken = f"{len(weights)} tensors" + (f", epoch {epoch}" if info else "")
    taken += f", monitor_best {best:.6g}" if best is not None else ""
    return (
        f"{new}: {taken} of {old}; not the optimizer's state, so no run can resume exactly; to fine-tune or test: "
        f"train.py or test.py with -c config.json -r {new}"
    )


def _load(old: Path) -> Any:
    """Return the content of a file of torch.save with an `Inert` for every object in it. Raises CheckpointError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the age of the format
            file = io.BytesIO(old.read_bytes())
            return torch.load(file, map_location="cpu", weights_only=False, pickle_module=InertPickle)
    except Exception as error:  # whatever a damaged or crafted pickle makes torch raise
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise CheckpointError(f"{old}: cannot be read: {reason:.200}") from None


def _weights(weights: Any, old: Path) -> dict[str, torch.Tensor]:
    """Return the tensors by name, without DataParallel's prefix. Raises CheckpointError where there are none."""
    tensors = weights.items() if isinstance(weights, dict) else ()
    if not tensors or not all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in tensors):
        hint = "of a whole model, save its state_dict() where its class is"
        raise CheckpointError(f"{old}: neither a checkpoint with a state_dict of tensors nor weights; {hint}")
    prefix = PREFIX if all(name.startswith(PREFIX) for name in weights) else ""
    return {name.removeprefix(prefix): value.detach() for name, value in tensors}


def _config(config: Any) -> dict[str, Any]:
    """Return the config as plain dicts, {} where there is none: the old checkpoint holds its ConfigParser."""
    if isinstance(config, Inert):
        config = vars(config).get("_config", vars(config).get("config"))  # its name changed in 2019
    return json.loads(json.dumps(config, default=lambda value: None)) if isinstance(config, dict) else {}


def main(argv: Sequence[str] | None = None) -> None:
    """Do what the command line says. Raises CheckpointError, RunDirError."""
    parser = argparse.ArgumentParser(prog="python -m checkpoint.convert", description=__doc__, allow_abbrev=False)
    parser.add_argument("--trust", action="store_true", help="say that you know who made the old file")
    parser.add_argument("old", type=Path, help="checkpoint of the published template, or weights alone")
    parser.add_argument("new", type=Path, help="checkpoint to write")
    args = parser.parse_args(argv)
    if not args.trust:
        reason = "it is a pickle, and loading one from a stranger could run code"
        raise CheckpointError(f"{args.old}: not read: {reason}; where you know who made it, add --trust")
    print(convert(args.old, args.new))


if __name__ == "__main__":
    with told_to_user():
        main(sys.argv[1:])
