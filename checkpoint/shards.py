"""The parts of a checkpoint that lie beside its file: what each process holds of sharded weights, in `shards-STEP/`.

The file says in "shards" in which directory they are, and the SHA-256 of each file there. A tensor that is in them has
in the file no elements, but shape and dtype: (0, *its shape).
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distributed import rank, world_size
from distributed.collective import gather
from speed import is_sharded
from utils.errors import CheckpointError, reading
from utils.nested import tensors_of

DIRECTORY = re.compile(r"shards-\d+(-\d+)?")
UNFINISHED = re.compile(r"\.shards-\d+(-\d+)?\.tmp")
FILE = re.compile(r"__\d+_\d+\.distcp|\.metadata")
CHUNK_BYTES = 1 << 20


def split(state: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return `state` without the values of its sharded tensors, and these by name, as in "model.fc.weight"."""
    tensors: dict[str, Any] = {}

    def take(name: str, tensor: Tensor) -> Tensor:
        if not is_sharded(tensor):
            return tensor
        tensors[name] = tensor
        return torch.empty(0, *tensor.shape, dtype=tensor.dtype)

    return {key: _map_named(take, value, key) for key, value in state.items()}, tensors


class Shards:
    """What lies beside a checkpoint that `load_checkpoint` returned; of one without shards, nothing."""

    def __init__(self, checkpoint: dict[str, Any]) -> None:
        """Read which tensors there are. Raises CheckpointError."""
        self._checkpoint = checkpoint
        self._files: dict[str, str] = {}
        self._names: set[str] = set()
        if "shards" not in checkpoint:
            return
        where: Path = checkpoint["shards"]["path"]
        name, files = checkpoint["shards"].get("directory"), checkpoint["shards"].get("files")
        is_known = isinstance(name, str) and DIRECTORY.fullmatch(name) and isinstance(files, dict)
        if not is_known or not all(isinstance(file, str) and FILE.fullmatch(file) for file in files):
            raise CheckpointError(f"{where}: refused: its shards are not those of this project")
        self._directory, self._files = where.with_name(name), files
        for file in files:
            if not (self._directory / file).is_file():
                raise CheckpointError(f"{where}: {self._directory / file} is missing; the shards must lie beside it")
        from checkpoint.dcp import names_in

        self._names = names_in(self._directory, files)

    def check(self, is_shared: bool) -> None:
        """Raise CheckpointError where a file is not what was written; `is_shared`: the processes share the reading."""
        start, step = (rank(), world_size()) if is_shared else (0, 1)
        problem = None
        for file, digest in sorted(self._files.items())[start::step]:
            path = self._directory / file
            with reading(path, CheckpointError):
                if digest_of(path) != digest:
                    problem = f"{path}: damaged: the checksum does not fit; give -r another checkpoint"
        problems = gather(problem) if is_shared and self._files else [problem]
        for found in filter(None, problems):
            raise CheckpointError(found)

    def outline(self, key: str) -> Any:
        """Return part `key` of the checkpoint; those of its tensors that are in the shards on the meta device."""
        part = self._checkpoint.get(key)

        def shape_of(name: str, tensor: Tensor) -> Tensor:
            return tensor.new_empty(tensor.shape[1:], device="meta") if name in self._names else tensor

        return _map_named(shape_of, part, key) if self._names else part

    def filled(self, key: str, outline: Any) -> Any:
        """Return `outline` of part `key`, in which tensors may have been replaced by DTensors, with all values."""
        tensors: dict[str, Any] = {}

        def make_room(name: str, tensor: Tensor) -> Tensor:
            if name not in self._names:
                return tensor
            tensors[name] = tensor if is_sharded(tensor) else torch.zeros_like(tensor, device="cpu")
            return tensors[name]

        num_bytes = sum(tensor.nbytes for tensor in tensors_of(outline) if tensor.is_meta)
        if num_bytes > sum((self._directory / file).stat().st_size for file in self._files):
            raise CheckpointError(f"{self._directory}: refused: its tensors are larger than its files")
        whole = _map_named(make_room, outline, key) if self._names else outline
        if tensors:
            from checkpoint.dcp import read

            read(self._directory, self._files, tensors)
        return whole

    def whole(self, key: str) -> Any:
        """Return part `key` of the checkpoint with whole tensors."""
        return self.filled(key, self.outline(key))

    def merged(self) -> dict[str, Any]:
        """Return the checkpoint as one that has no shards. Raises CheckpointError."""
        self.check(is_shared=False)
        return {key: self.whole(key) for key in self._checkpoint if key != "shards"}


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file. Raises OSError."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def remove_unnamed(run_dir: Path) -> None:
    """Delete the directories of shards in `run_dir` that no checkpoint names, and those that were not finished."""
    paths = [path for path in run_dir.iterdir() if "shards-" in path.name and path.is_dir() and not path.is_symlink()]
    unfinished = [path for path in paths if UNFINISHED.fullmatch(path.name)]
    finished = [path for path in paths if DIRECTORY.fullmatch(path.name)]
    named = {name for file in run_dir.glob("*.pth*") for name in _named_in(file)} if finished else set()
    for path in (*unfinished, *(path for path in finished if path.name not in named)):
        for file in path.iterdir():
            if FILE.fullmatch(file.name.removesuffix(".tmp")):
                file.unlink(missing_ok=True)
        with suppress(OSError):  # something else is in it
            path.rmdir()


def _named_in(file: Path) -> set[str]:
    """Return what may be a directory of shards in the pickle of a checkpoint; its tensors are not read."""
    try:
        with zipfile.ZipFile(file) as archive:
            pickles = [archive.read(name) for name in archive.namelist() if name.endswith("/data.pkl")]
    except (zipfile.BadZipFile, FileNotFoundError):  # nothing can be resumed from it
        return set()
    return {found.group().decode() for pickled in pickles for found in re.finditer(rb"shards-\d+(-\d+)?", pickled)}


def _map_named(function: Callable[[str, Tensor], Tensor], value: Any, name: str) -> Any:
    """Return a copy of nested `value` with `function` of name and tensor in place of every tensor in it."""
    if isinstance(value, Tensor):
        return function(name, value)
    if isinstance(value, dict):
        copy = value.copy()
        for key, item in value.items():
            copy[key] = _map_named(function, item, f"{name}.{key}")
        return copy
    if isinstance(value, list):
        return [_map_named(function, item, f"{name}.{index}") for index, item in enumerate(value)]
    return value
