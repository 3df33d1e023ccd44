"""Shards on the disk, in the format of torch.distributed.checkpoint; imported where a run has some, as that takes time.

What torch reads there by pickle, which could run code, is read here by an unpickler that knows the classes of DCP's
metadata alone, and may describe nothing but tensors in files of the checkpoint.
"""

from __future__ import annotations

import io
import pickle
import warnings
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import filesystem, metadata
from torch.serialization import _get_layout

from utils.errors import CheckpointError, printable

METADATA_FILE = ".metadata"
MALFORMED_SHARDS = (Exception, dcp.api.CheckpointException)  # the second is no Exception
DTYPES = {("torch", name): value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}
PATHS = {  # Python 3.13 has them in another module
    (module, name): PurePosixPath for module in ("pathlib", "pathlib._local") for name in ("PosixPath", "WindowsPath")
}
CLASSES = (
    metadata.Metadata,
    metadata.MetadataIndex,
    metadata.TensorStorageMetadata,
    metadata.TensorProperties,
    metadata.ChunkStorageMetadata,
    metadata.StorageMeta,
    metadata._MEM_FORMAT_ENCODING,
    filesystem._StorageInfo,
)
KNOWN = {
    **DTYPES,
    **PATHS,
    **{(kind.__module__, kind.__name__): kind for kind in CLASSES},
    ("torch", "Size"): torch.Size,
    ("torch.serialization", "_get_layout"): _get_layout,
}
"""All that the pickle of a checkpoint's metadata may name."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in KNOWN:
            raise ValueError(f"it names {module}.{name}")
        return KNOWN[module, name]


class _Reader(dcp.FileSystemReader):
    """Reads the metadata without trusting it; `files` are the names of all files that may be read."""

    def __init__(self, directory: Path, files: Collection[str]) -> None:
        super().__init__(directory)
        self.directory, self.files = directory, files

    def read_metadata(self, *args: Any, **kwargs: Any) -> metadata.Metadata:
        content = _Unpickler(io.BytesIO((self.directory / METADATA_FILE).read_bytes())).load()
        if not isinstance(content, metadata.Metadata):
            raise ValueError("it is no metadata")
        if any(type(entry) is not metadata.TensorStorageMetadata for entry in content.state_dict_metadata.values()):
            raise ValueError("it describes more than tensors")  # what else there can be, torch would unpickle
        places = content.storage_data.values()
        if any(place.relative_path not in self.files or place.transform_descriptors for place in places):
            raise ValueError("it describes other files")
        content.storage_meta = metadata.StorageMeta()
        return content


class _Writer(dcp.FileSystemWriter):
    def write_data(self, plan: dcp.SavePlan, planner: dcp.SavePlanner) -> Any:
        try:
            return super().write_data(plan, planner)
        except RuntimeError as error:  # where the disk is full, torch's zip writer fails once more as it closes
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None


def names_in(directory: Path, files: Collection[str]) -> set[str]:
    """Return the names of the tensors in `directory`. Raises CheckpointError."""
    try:
        return set(_Reader(directory, files).read_metadata().state_dict_metadata)
    except Exception as error:  # whatever a crafted pickle raises
        raise CheckpointError(f"{directory / METADATA_FILE}: refused: {printable(error)}") from None


def read(directory: Path, files: Collection[str], tensors: dict[str, Any]) -> None:
    """Read `tensors`, by name, in place: of each DTensor this process's part. Raises CheckpointError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that processes are not asked: there is nothing to agree on
            dcp.load(tensors, storage_reader=_Reader(directory, files), no_dist=True)
    except MALFORMED_SHARDS as error:
        failures = getattr(error, "failures", None) or {0: (error,)}
        first = next(iter(failures.values()))[0]
        reason = f"{type(first).__name__}: {first}".splitlines()[0]
        raise CheckpointError(f"{directory}: does not fit: {printable(reason)}") from None


def write(directory: Path, tensors: dict[str, Any], group: dist.ProcessGroup) -> None:
    """Write `tensors`, DTensors on the CPU, by all processes of `group`; return when their files are on the disk.

    Raises OSError or RuntimeError in all processes where one cannot write.
    """
    try:
        dcp.save(tensors, storage_writer=_Writer(directory), process_group=group)
    except dcp.api.CheckpointException as error:
        number, (reason, _) = next(iter(error.failures.items()))
        if isinstance(reason, OSError):
            raise OSError(reason.errno, f"{reason.strerror or reason} (process {number})") from None
        raise RuntimeError(f"process {number}: {type(reason).__name__}: {reason}") from None
