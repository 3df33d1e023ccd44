"""Checkpoint files: written whole or not at all, sealed with a checksum, and read without trusting them.

A checkpoint is what `torch.save` writes (a zip of plain data and tensors, which `torch.load(weights_only=True)` reads),
plus a seal in the zip's comment: SHA-256 of everything before it, and the step, so that the newest file of a directory
is found without loading any.
"""

from __future__ import annotations

import hashlib
import io
import logging
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from utils.errors import CheckpointError
from utils.files import write_atomic

FORMAT = 1
SEAL = re.compile(rb"sha256=([0-9a-f]{64}) global_step=(\d{16})")
SEAL_BYTES = 7 + 64 + 13 + 16
BEST, LATEST, PREVIOUS = "model_best.pth", "latest.pth", "previous.pth"

logger = logging.getLogger("checkpoint")


def save_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Write `state`, which has a "position", to `path`. Raises OSError and then leaves `path` as it was."""
    write_atomic(path, serialise(state))


def serialise(state: dict[str, Any]) -> bytes:
    """Return the bytes of the sealed checkpoint file of `state`, plain data with a "position"."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state}, buffer)
    return _seal(buffer.getvalue(), state["position"]["global_step"])


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Return what was saved to `path`, on the CPU.

    Raises CheckpointError where the file is missing, damaged, of another format, or not plain data. The checksum and
    the sizes are checked before anything is parsed, and nothing that is parsed can run code.
    """
    body = _unseal(path)
    _check_zip(body, path)
    try:
        # weights_only=True is said here, not left to the default, which an environment variable can turn off.
        state = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a crafted pickle makes torch raise
        found = re.search(r"Unsupported (global|class|operand)[^\n]*?(GLOBAL )?([\w.]+) ", str(error))
        reason = f"it names {found.group(3)}" if found else type(error).__name__
        raise CheckpointError(f"{path}: refused: it is not plain data ({reason})") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not a checkpoint of format {FORMAT}")
    return state


def find_checkpoint(path: str | Path, prefer: str | None = None) -> Path:
    """Return the checkpoint to use: `path` itself, or in a run directory `prefer` or else the newest whole one.

    Damaged files are skipped with a warning. Raises CheckpointError where nothing usable is there.
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError(f"{path}: no such file or directory")
    if path.is_file():
        return path
    files = sorted(path.glob("*.pth"), key=lambda file: (file.name == prefer, sealed_step(file)), reverse=True)
    for file in files:
        try:
            _unseal(file)
            return file
        except CheckpointError as error:
            logger.warning(f"skipped: {error}")
    what = f"none of its {len(files)} checkpoints is whole" if files else "there is no checkpoint in it"
    raise CheckpointError(f"{path}: {what}")


def load_weights(model: nn.Module, weights: dict[str, Any], where: str) -> None:
    """Load `weights` into `model` after checking that names, shapes and dtypes are the model's own.

    Raises CheckpointError, which begins with `where` and tells the first few that do not fit.
    """
    own = model.state_dict()
    problems = [f"{name} is missing" for name in own.keys() - weights.keys()]
    problems += [f"{name} is not in the model" for name in weights.keys() - own.keys()]
    for name in own.keys() & weights.keys():
        saved, wanted = weights[name], own[name]
        if not isinstance(saved, torch.Tensor):
            problems.append(f"{name} is no tensor")
        elif (saved.shape, saved.dtype) != (wanted.shape, wanted.dtype):
            problems.append(
                f"{name} is {saved.dtype} {list(saved.shape)}, the model's is {wanted.dtype} {list(wanted.shape)}"
            )
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise CheckpointError(f"{where}: does not fit the model: {'; '.join(sorted(problems)[:3])}{more}")
    model.load_state_dict(weights)


def load_part(part: Any, state: Any, where: str) -> None:
    """Load `state` into a part of a run: a module, an optimizer, or whatever has `load_state_dict`.

    Raises CheckpointError, which begins with `where`, unless the state is one of such a part: of the same keys and,
    for modules and optimizers, of fitting shapes. What is loaded may come from a stranger.
    """
    own = part.state_dict()
    if not isinstance(state, dict) or (state.keys() != own.keys() and not isinstance(part, nn.Module)):
        raise CheckpointError(f"{where}: missing or of other keys than this run's")
    if isinstance(part, nn.Module):
        load_weights(part, state, where)
        return
    try:
        part.load_state_dict(state)
        if isinstance(part, torch.optim.Optimizer):
            _check_optimizer(part, where)
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise CheckpointError(f"{where}: does not fit: {type(error).__name__}: {error}") from None


def _check_optimizer(optimizer: torch.optim.Optimizer, where: str) -> None:
    """Refuse states that torch would load and then stumble over: a tensor must fit or broadcast to its parameter."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and value.numel() > 1:
                saved, wanted = list(value.shape), list(parameter.shape)
                if len(saved) != len(wanted) or any(size not in (1, full) for size, full in zip(saved, wanted)):
                    raise CheckpointError(f"{where}: {name} is {saved} for a weight {wanted}")


def _seal(body: bytes, global_step: int) -> bytes:
    """Put the seal into the zip's comment, whose length is the last two bytes of a zip without one (APPNOTE 4.3.16)."""
    assert body[-22:-18] + body[-2:] == b"PK\x05\x06\0\0", "torch.save no longer ends with a plain zip record"
    body = body[:-2] + SEAL_BYTES.to_bytes(2, "little")
    step = f" global_step={global_step:016d}".encode()
    digest = hashlib.sha256(body + step).hexdigest().encode()
    return body + b"sha256=" + digest + step


def _unseal(path: Path) -> bytes:
    """Return the bytes of the checkpoint at `path`; raise CheckpointError unless they are those that were written."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    seal = SEAL.fullmatch(data[-SEAL_BYTES:])
    if seal is None:
        raise CheckpointError(f"{path}: damaged or not a checkpoint of this project: no checksum at its end")
    step = b" global_step=" + seal.group(2)
    if hashlib.sha256(data[:-SEAL_BYTES] + step).hexdigest().encode() != seal.group(1):
        raise CheckpointError(f"{path}: damaged: the checksum does not fit")
    return data


def sealed_step(path: Path) -> float:
    """Return the step in the seal; a file without one sorts as newest, so that it is looked at and told of."""
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - SEAL_BYTES))
        seal = SEAL.fullmatch(file.read())
    return int(seal.group(2)) if seal else float("inf")


def _check_zip(data: bytes, path: Path) -> None:
    """Refuse what could fill the memory: compressed entries, and entries that claim more bytes than the file has."""
    try:
        entries = zipfile.ZipFile(io.BytesIO(data)).infolist()
    except zipfile.BadZipFile as error:
        raise CheckpointError(f"{path}: refused: {error}; the format of torch < 1.6 is not read") from None
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise CheckpointError(f"{path}: refused: compressed entries")
    if sum(entry.file_size for entry in entries) > len(data):
        raise CheckpointError(f"{path}: refused: its entries overlap")
