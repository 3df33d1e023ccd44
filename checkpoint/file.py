"""Checkpoint files: written whole or not at all, sealed with a checksum, and read without trusting them.

A checkpoint is what `torch.save` writes (a zip of plain data and tensors, which `torch.load(weights_only=True)` reads),
plus a seal in the zip's comment: SHA-256 of everything before it, and the position, so that the newest of a directory
is found without loading any.
"""

from __future__ import annotations

import hashlib
import io
import logging
import math
import pickletools
import re
import struct
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from checkpoint.upgrade import FORMAT, upgrade
from utils.errors import CheckpointError, RunDirError, reading

SEAL = re.compile(rb"sha256=([0-9a-f]{64})( epoch=(\d{12}) step=(\d{12}))")
SEAL_BYTES = 7 + 64 + 7 + 12 + 6 + 12
MAX_VALUES, MAX_DEPTH = 2_000_000, 100
NAMING = ("GLOBAL", "STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4")  # opcodes that name something to call or build
# What a checkpoint's pickle may name; torch's own list has more, such as bytearray, which can ask for any size.
GLOBALS = re.compile(
    r"collections (OrderedDict|Counter)|builtins set|torch \w+Storage|torch\._utils _rebuild_tensor_v2"
)
LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # how a file of torch < 1.6 begins: a pickled magic number
HINT = "; one of the published template, or weights alone, is converted by python -m checkpoint.convert --trust OLD NEW"
BEST, LATEST, PREVIOUS = "model_best.pth", "latest.pth", "previous.pth"

logger = logging.getLogger("checkpoint")


def serialise(state: dict[str, Any]) -> bytes:
    """Return the bytes of the sealed checkpoint file of `state`, plain data with a "position"."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state}, buffer)
    return _seal(buffer.getvalue(), state["position"]["epoch"], state["position"]["step_in_epoch"])


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Return what was saved to `path`, on the CPU.

    Raises CheckpointError where the file is missing, damaged, of another format, or not plain data. The checksum and
    the sizes are checked before anything is parsed, and nothing that is parsed can run code.
    """
    data = _unseal(path)
    _check_globals(_stored_pickle(data, path), path)
    try:
        # weights_only=True is said here, not left to the default, which an environment variable can turn off.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an odd pickle
            state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a crafted pickle makes torch raise
        raise CheckpointError(f"{path}: refused: it is not plain data ({type(error).__name__})") from None
    version = state.get("format") if isinstance(state, dict) else None
    if type(version) is not int or not 1 <= version <= FORMAT:
        raise CheckpointError(f"{path}: not a checkpoint of format 1 to {FORMAT}")
    for count, (depth, _) in enumerate(_values(state)):
        if count >= MAX_VALUES or depth > MAX_DEPTH:
            raise CheckpointError(
                f"{path}: refused: more than {MAX_VALUES:,} values, or nested deeper than {MAX_DEPTH}"
            )
    _check_tensors(state, path)
    if "shards" in state:  # they lie beside the file
        state["shards"] = {**state["shards"], "path": path} if isinstance(state["shards"], dict) else {"path": path}
    return upgrade(state)


def checkpoint_files(run_dir: Path) -> list[Path]:
    """Return the checkpoints of a run: the files that this project names, and no others. Raises RunDirError."""
    with reading(run_dir, RunDirError):
        files = [path for path in run_dir.iterdir() if path.suffix == ".pth" and path.is_file()]
    return sorted(path for path in files if path.name in (BEST, LATEST, PREVIOUS) or epoch_of(path) is not None)


def find_checkpoint(path: str | Path, prefer: str | None = None) -> Path:
    """Return the checkpoint to use: `path` itself, or in a run directory `prefer` or else the newest whole one.

    Damaged files are skipped with a warning. Raises CheckpointError where nothing usable is there.
    """
    path = Path(path)
    with reading(path, CheckpointError):
        path.stat()
    if path.is_file():
        _unseal(path)  # now, since the next thing to be read is the config beside it
        return path
    order = {file: (file.name == prefer, sealed_position(file), epoch_of(file) or 0) for file in checkpoint_files(path)}
    errors: list[str] = []
    for file in sorted(order, key=order.__getitem__, reverse=True):
        try:
            _unseal(file)
        except CheckpointError as error:
            errors.append(str(error))
        else:
            for reason in errors:
                logger.warning(f"skipped: {reason}")
            return file
    what = f"none of its {len(order)} checkpoints is whole: {errors[0]}" if errors else "there is no checkpoint in it"
    raise CheckpointError(f"{path}: {what}")


def is_whole(path: Path) -> bool:
    """Whether the file at `path` is, to the byte, a checkpoint as it was written."""
    try:
        _unseal(path)
    except CheckpointError:
        return False
    return True


def _seal(body: bytes, epoch: int, step: int) -> bytes:
    """Put the seal into the zip's comment, whose length is the last two bytes of a zip without one (APPNOTE 4.3.16)."""
    assert body[-22:-18] + body[-2:] == b"PK\x05\x06\0\0", "torch.save no longer ends with a plain zip record"
    length, position = SEAL_BYTES.to_bytes(2, "little"), f" epoch={epoch:012d} step={step:012d}".encode()
    digest = hashlib.sha256(memoryview(body)[:-2])
    digest.update(length + position)
    return b"".join([memoryview(body)[:-2], length, b"sha256=", digest.hexdigest().encode(), position])


def _unseal(path: Path) -> bytes:
    """Return the bytes of the checkpoint at `path`; raise CheckpointError unless they are those that were written."""
    with reading(path, CheckpointError):
        data = path.read_bytes()
    seal = SEAL.fullmatch(data[-SEAL_BYTES:])
    if seal is None:
        may_be_other = data.startswith((b"PK", LEGACY)) and (b"state_dict" in data or b"environment" not in data)
        raise CheckpointError(f"{path}: damaged, or not a checkpoint of this project{HINT if may_be_other else ''}")
    digest = hashlib.sha256(memoryview(data)[:-SEAL_BYTES])
    digest.update(seal.group(2))
    if digest.hexdigest().encode() != seal.group(1):
        raise CheckpointError(f"{path}: damaged: the checksum does not fit")
    return data


def sealed_position(path: Path) -> tuple[float, float]:
    """Return (epoch, step in it) from the seal; a file without one sorts as newest, so that it is looked at first."""
    with reading(path, CheckpointError):  # such a file is not damaged: a run must not resume from an earlier one
        try:
            with open(path, "rb") as file:
                file.seek(max(0, path.stat().st_size - SEAL_BYTES))
                seal = SEAL.fullmatch(file.read())
        except FileNotFoundError:  # deleted by the trainer since the directory was read
            return (-1, -1)
    return (int(seal.group(3)), int(seal.group(4))) if seal else (math.inf, math.inf)


def _stored_pickle(data: bytes, path: Path) -> bytes:
    """Return the pickle in a zip of torch.save; refuse what could fill the memory: compressed entries, false sizes."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        entries = archive.infolist()
        pickles = [entry for entry in entries if entry.filename.endswith("/data.pkl")]
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("compressed entries")
        if sum(entry.file_size for entry in entries) > len(data):
            raise ValueError("its entries overlap")
        if len(pickles) != 1:
            raise ValueError("not what torch.save writes")
        return archive.read(pickles[0])
    except Exception as error:  # ours, and whatever a damaged zip makes zipfile raise
        raise CheckpointError(f"{path}: refused: {str(error) or type(error).__name__}") from None


def _check_globals(pickled: bytes, path: Path) -> None:
    """Refuse a pickle that names anything but tensors."""
    try:
        named = {str(value) for op, value, _ in pickletools.genops(pickled) if op.name in NAMING}
    except (ValueError, EOFError, struct.error) as error:
        raise CheckpointError(f"{path}: refused: {error}") from None
    strange = sorted(name for name in named if not GLOBALS.fullmatch(name))
    if strange:
        raise CheckpointError(f"{path}: refused: it is not plain data (it names {strange[0]})")


def _values(state: Any) -> Iterator[tuple[int, Any]]:
    """Yield depth and value of all nested containers and their items; what is in two containers comes twice.

    Without recursion, which deep nesting would break.
    """
    stack = [(0, state)]
    while stack:
        depth, value = stack.pop()
        yield depth, value
        if isinstance(value, dict):
            stack.extend((depth + 1, item) for item in value.values())
        elif isinstance(value, list | tuple | set):
            stack.extend((depth + 1, item) for item in value)


def _check_tensors(state: dict[str, Any], path: Path) -> None:
    """Refuse tensors unlike the writer's clones, each of which has memory of its own and fills it without gaps.

    Others crash kernels that ignore strides, and a view of one number may claim any size. The weights of the model may
    share memory, as tied ones do, since a model copies them.
    """
    owned: set[int] = set()
    for _, value in _values({key: part for key, part in state.items() if key != "model"}):
        if isinstance(value, torch.Tensor) and value.numel() > 0:
            memory = value.untyped_storage().data_ptr()
            by_stride = sorted(range(value.ndim), key=value.stride, reverse=True)
            is_clone = value.permute(by_stride).is_contiguous() and memory not in owned
            if not is_clone or value.requires_grad or value.is_conj() or value.is_neg():
                raise CheckpointError(f"{path}: refused: a tensor of {list(value.shape)} that is a view of another")
            owned.add(memory)


def epoch_of(path: Path) -> int | None:
    """Return the epoch of `checkpoint-epoch{N}.pth`, None for any other name."""
    found = re.fullmatch(r"checkpoint-epoch([1-9]\d*)\.pth", path.name)
    return int(found.group(1)) if found else None
