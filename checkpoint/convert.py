"""Convert a checkpoint of the published template (2020), or weights alone, to one of this project.

python -m checkpoint.convert --trust OLD.pth NEW.pth
"""

from __future__ import annotations

import argparse
import io
import math
import pickle
import re
import sys
import types
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from checkpoint.file import LEGACY, MAX_VALUES, count_values, sealed_position, serialise, stored_pickle
from utils.errors import CheckpointError, told_to_user, writing_to
from utils.files import write_atomic

PREFIX = "module."  # of every name in the weights of a model that was wrapped in DataParallel


class Inert:
    """Replaces every class and function that an old checkpoint names, so that none is imported or called.

    `state` is what the attributes of the pickled object were.
    """

    state: Any = None
    dump_patches = False  # torch's reader of the legacy format looks at it

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take the arguments of whatever was to be called, and do nothing."""

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        """Take an item of a pickled subclass of dict, and do nothing."""

    def append(self, value: Any) -> None:
        """Take an item of a pickled subclass of list, and do nothing."""


class NumpyDtype:
    """Replaces a pickled numpy.dtype: the code of its kind and size, as in "f8", and the order of its bytes."""

    def __init__(self, code: str, *flags: Any) -> None:
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]


def _numpy_scalar(dtype: NumpyDtype, data: bytes) -> Any:
    """Return a pickled NumPy number as Python's, an `Inert` for other scalars; raise ValueError for malformed ones."""
    code = f"{dtype.order}{dtype.code}"
    is_number = re.fullmatch(r"[<>=|](f[248]|[iu][1248]|b1)", code)
    return np.frombuffer(data, code)[0].item() if is_number else Inert()


def _latin1(text: str, encoding: str) -> bytes:
    """Return `text` as bytes; pickles of protocol 2 hold bytes as text in latin1."""
    return text.encode("latin1")


# Everything that an old checkpoint can call. Storages are torch's own affair: it never looks them up here.
CALLABLE = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor"): torch._utils._rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    ("_codecs", "encode"): _latin1,
    ("numpy", "dtype"): NumpyDtype,
    ("numpy.core.multiarray", "scalar"): _numpy_scalar,
    ("numpy._core.multiarray", "scalar"): _numpy_scalar,
}


class InertUnpickler(pickle._Unpickler):
    """Reads tensors and plain data; of all else it makes an `Inert`.

    Not the unpickler in C, and no bytearrays: either allocates the gigabytes that a damaged pickle may ask for.
    """

    dispatch: ClassVar = {op: load for op, load in pickle._Unpickler.dispatch.items() if op != pickle.BYTEARRAY8[0]}

    def find_class(self, module: str, name: str) -> Any:
        """Return what a name in the pickle is to mean here; nothing is imported."""
        return CALLABLE.get((module, name), Inert)


def _inert_load(file: Any, **options: Any) -> Any:
    return InertUnpickler(file, **options).load()


INERT_PICKLE = types.SimpleNamespace(__name__="inert_pickle", Unpickler=InertUnpickler, load=_inert_load)


def convert(old: Path, new: Path) -> str:
    """Write the weights, epoch and config of `old` to `new`; return a line that says what was taken and what was not.

    `old` is a checkpoint of the published template, or any file of torch.save that has "state_dict" or is weights
    alone, as torch < 1.6 or a later torch writes it. Raises CheckpointError where it is none of these or `new` is
    there already, and RunDirError where `new` cannot be written; then there is no `new`.
    """
    if new.exists() or new.is_symlink():
        raise CheckpointError(f"{new}: is there already; nothing is overwritten")
    content = _unpickle(_read(old), old)
    weights = _weights(content, old)
    info = content if "state_dict" in content else {}
    epoch, best = info.get("epoch"), info.get("monitor_best")
    epoch = epoch if isinstance(epoch, int) and 0 <= epoch < 10**9 else 0
    best = best if isinstance(best, int | float) and abs(best) < 1e300 else None  # no NaN either
    state = {
        "position": {"epoch": epoch + 1, "step_in_epoch": 0, "global_step": 0},
        "epoch": epoch,
        "model": weights,
        "log": {} if best is None else {"monitor_best": float(best)},
        "config": _config(info, old),
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


def _read(old: Path) -> bytes:
    """Return the bytes of `old`, a file of torch.save that no seal makes one of ours. Raises CheckpointError."""
    try:
        data = old.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{old}: cannot be read: {error.strerror}") from None
    if sealed_position(old) != (math.inf, math.inf):
        raise CheckpointError(f"{old}: is a checkpoint of this project already")
    if b"constants.pkl" in data:  # torch.load would hand that to a reader that is not ours
        raise CheckpointError(f"{old}: a model of torch.jit, not a checkpoint")
    if not data.startswith(LEGACY):
        stored_pickle(data, old)
        _check_sums(data, old)
    return data


def _check_sums(data: bytes, old: Path) -> None:
    """Raise CheckpointError where a checksum in a zip does not fit; torch.load looks at none."""
    try:
        damaged = zipfile.ZipFile(io.BytesIO(data)).testzip()
    except Exception as error:  # whatever a damaged zip makes zipfile raise
        raise CheckpointError(f"{old}: damaged: {str(error) or type(error).__name__}") from None
    if damaged:
        raise CheckpointError(f"{old}: damaged: the checksum of {damaged!r:.80} does not fit")


def _unpickle(data: bytes, old: Path) -> Any:
    """Return the content of a file of torch.save with an `Inert` for every object in it. Raises CheckpointError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the age of the format
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=False, pickle_module=INERT_PICKLE)
    except Exception as error:  # whatever a damaged or crafted pickle makes torch raise
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise CheckpointError(f"{old}: cannot be read: {reason:.200}") from None


def _weights(content: Any, old: Path) -> dict[str, torch.Tensor]:
    """Return the tensors by name, without DataParallel's prefix. Raises CheckpointError where there are none."""
    weights = content.get("state_dict", content) if isinstance(content, dict) else content
    if isinstance(weights, Inert):
        raise CheckpointError(f"{old}: a whole object, not weights; save its state_dict() where its class is")
    if not isinstance(weights, dict) or not weights:
        raise CheckpointError(f"{old}: no weights in it")
    for name, value in weights.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise CheckpointError(f"{old}: neither weights nor a checkpoint with state_dict: {name!r:.60} is no tensor")
    is_wrapped = all(name.startswith(PREFIX) for name in weights)
    return {name.removeprefix(PREFIX) if is_wrapped else name: value.detach() for name, value in weights.items()}


def _config(info: dict[str, Any], old: Path) -> dict[str, Any]:
    """Return the config as plain dicts, {} where there is none: the old checkpoint holds its ConfigParser."""
    config = info.get("config")
    if isinstance(config, Inert) and isinstance(config.state, dict):
        config = config.state.get("_config", config.state.get("config"))  # its name changed in 2019
    if count_values(config) > MAX_VALUES:
        raise CheckpointError(f"{old}: its config has more than {MAX_VALUES:,} values")
    try:
        return _plain(config) if isinstance(config, dict) else {}
    except RecursionError:
        raise CheckpointError(f"{old}: its config is nested too deeply") from None


def _plain(value: Any) -> Any:
    """Return nested dicts, lists and plain values; None for anything else, such as a path."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | None) else None


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
