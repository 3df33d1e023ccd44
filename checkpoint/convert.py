"""Convert a checkpoint of the published template (2020), or weights alone, to one of this project.

python -m checkpoint.convert --trust OLD.pth NEW.pth

Without --trust, write a checkpoint whose shards lie beside it as one file: python -m checkpoint.convert OLD.pth NEW.pth
"""

from __future__ import annotations

import argparse
import io
import json
import pickle
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from checkpoint.file import is_whole, load_checkpoint, serialise
from checkpoint.shards import Shards
from utils.errors import CheckpointError, writing_to
from utils.failures import exit_on_user_error
from utils.files import write_atomic

TENSOR_BUILDERS = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter")


class Inert(dict[Any, Any]):
    """Replaces every other class and function that an old checkpoint names, so that none is imported or called."""

    def __init__(self, *args: Any) -> None:
        """Ignore the arguments of whatever was to be called."""

    def __setstate__(self, state: Any) -> None:
        vars(self).update(state if isinstance(state, dict) else {})

    def append(self, value: Any) -> None:
        """Ignore an item of a pickled list."""


class InertUnpickler(pickle.Unpickler):
    """Reads tensors and plain data; every other object becomes an `Inert`."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what a name in the pickle means here; nothing is imported. Storages are torch's own affair."""
        if module == "torch._utils" and name in TENSOR_BUILDERS:
            return getattr(torch._utils, name)
        return OrderedDict if name == "OrderedDict" else Inert


INERT_PICKLE = SimpleNamespace(
    __name__="inert", Unpickler=InertUnpickler, load=lambda file, **options: InertUnpickler(file, **options).load()
)


def merge(old: Path, new: Path) -> str:
    """Write `old` and the shards beside it as the one file `new`; return a line that says so.

    Raises CheckpointError where `old` is no such checkpoint or `new` is there already, and RunDirError as `convert`.
    """
    _check_new(new)
    checkpoint = load_checkpoint(old)
    if "shards" not in checkpoint:
        raise CheckpointError(f"{old}: has no shards; there is nothing to convert")
    with writing_to(new.parent):
        write_atomic(new, serialise(Shards(checkpoint).merged()))
    return f"{new}: all of {old} and its shards"


def convert(old: Path, new: Path) -> str:
    """Write the weights, epoch and config of `old` to `new`; return a line that says what was taken and what was not.

    `old` is any file of torch.save that has "state_dict", or is weights alone. Raises CheckpointError where it is
    neither or `new` is there already, and RunDirError where `new` cannot be written; then there is no `new`.
    """
    _check_new(new)
    try:
        data = io.BytesIO(old.read_bytes())
        content = torch.load(data, map_location="cpu", weights_only=False, pickle_module=INERT_PICKLE)
    except Exception as error:  # whatever a damaged file makes torch raise
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise CheckpointError(f"{old}: cannot be read: {reason:.200}") from None
    info = content if isinstance(content, dict) and "state_dict" in content else {"state_dict": content}
    weights, config, epoch = _weights(info["state_dict"], old), _config(info.get("config")), info.get("epoch")
    epoch = epoch if isinstance(epoch, int) and 0 <= epoch < 10**9 else 0
    position = {"epoch": epoch + 1, "step_in_epoch": 0, "global_step": 0}
    state = {"position": position, "epoch": epoch, "model": weights, "config": config, "log": {}, "facts": {}}
    with writing_to(new.parent):
        write_atomic(new, serialise(state | {"environment": {"converted_from": str(old)}}))
    taken = f"{len(weights)} tensors, epoch {epoch}, of {old}; not the optimizer's state, so no run can resume exactly"
    return f"{new}: {taken}; to fine-tune or test: train.py or test.py with -c config.json -r {new}"


def _check_new(new: Path) -> None:
    if new.exists() or new.is_symlink():
        raise CheckpointError(f"{new}: is there already; nothing is overwritten")


def _weights(weights: Any, old: Path) -> dict[str, torch.Tensor]:
    """Return the tensors by name, without DataParallel's prefix. Raises CheckpointError where there are none."""
    tensors = weights.items() if isinstance(weights, dict) else ()
    if not tensors or not all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in tensors):
        raise CheckpointError(f"{old}: no weights in it; of a whole model, save its state_dict() where its class is")
    prefix = "module." if all(name.startswith("module.") for name in weights) else ""
    return {name.removeprefix(prefix): value.detach() for name, value in tensors}


def _config(config: Any) -> Any:
    """Return the config as plain dicts, {} where there is none: the old checkpoint holds its ConfigParser."""
    if isinstance(config, Inert):
        config = vars(config).get("_config", vars(config).get("config"))  # its name changed in 2019
    return json.loads(json.dumps(config, default=str, skipkeys=True)) if isinstance(config, dict) else {}


def main(argv: list[str] | None = None) -> None:
    """Do what the command line says. Raises CheckpointError, RunDirError."""
    parser = argparse.ArgumentParser(prog="python -m checkpoint.convert", description=__doc__, allow_abbrev=False)
    parser.add_argument("--trust", action="store_true", help="say that you know who made the old file")
    parser.add_argument("old", type=Path, help="checkpoint of the published template, weights alone, or with shards")
    parser.add_argument("new", type=Path, help="checkpoint to write")
    args = parser.parse_args(argv)
    is_own = is_whole(args.old)
    if not args.trust and not is_own:
        raise CheckpointError(f"{args.old}: not read: a pickle can run code; where you know who made it, add --trust")
    print((merge if is_own else convert)(args.old, args.new))


if __name__ == "__main__":
    with exit_on_user_error():
        main()
