"""New inputs of a trained model, from memory or from a file: what a loader's `new_inputs` returns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from utils import ConfigError, DataError
from utils.nested import map_tensors, tensors_of

if TYPE_CHECKING:
    import pyarrow as pa


class Chunk(NamedTuple):
    """Samples of a file that follow each other, without those that cannot be read."""

    inputs: Any  # (n, ...) tensors of any nesting: what the model takes
    kept: pa.Table  # n rows, or no column: what to write beside the predictions
    mistakes: Sequence[str] = ()  # of the samples left out: "new.csv: row 3, column 'x': 'abc' is not a finite number"

    @property
    def size(self) -> int:
        """The number of samples."""
        return len(next(tensors_of(self.inputs)))

    def cut(self, start: int, end: int) -> Chunk:
        """Return the samples from `start` to before `end`, without the mistakes."""
        return Chunk(slice_of(self.inputs, start, end), self.kept.slice(start, end - start))

    def followed_by(self, other: Chunk) -> Chunk:
        """Return the samples of both, with the mistakes of `other`."""
        import pyarrow as pa  # a project without tables does without it until it predicts

        kept = pa.concat_tables([self.kept, other.kept])
        return Chunk(joined([self.inputs, other.inputs]), kept, other.mistakes)


class NewInputs:
    """Turns new inputs into what the model takes, as the loader did for training. This one takes finished tensors."""

    target_names: Sequence[str] = ()
    """What is predicted, by name; () where it has none."""
    class_names: Sequence[str] | None = None
    """Of class indices, in their order; None where they have none."""

    def __call__(self, values: Any) -> Any:
        """Return the inputs (N, ...) of `values`, which are in memory. Raises DataError, with row and column."""
        try:
            inputs = torch.as_tensor(values)
        except (TypeError, ValueError, RuntimeError):
            raise DataError(f"{type(values).__name__}: give a tensor (N, ...), as the model takes it") from None
        return inputs

    def chunks(self, path: Path, keep: Sequence[str], chunk_size: int) -> Iterator[Chunk]:
        """Yield the samples of a file or folder in their order, in flat memory, with the columns `keep`.

        A chunk has about `chunk_size` samples where samples are read one by one. Raises DataError where no sample can
        be read, as where a column is missing.
        """
        raise ConfigError("data_loader: this loader's new_inputs reads no files; see docs/predict.md")


def rebatched(chunks: Iterator[Chunk], batch_size: int) -> Iterator[Chunk]:
    """Yield the same samples in chunks of whole batches, the last one aside; mistakes come when they are found."""
    rest: Chunk | None = None
    for chunk in chunks:
        whole = chunk if rest is None or rest.size == 0 else rest.followed_by(chunk)
        end = whole.size - whole.size % batch_size
        yield whole.cut(0, end)._replace(mistakes=chunk.mistakes)
        rest = whole.cut(end, whole.size)
    if rest is not None and rest.size:
        yield rest


def slice_of(inputs: Any, start: int, end: int) -> Any:
    """Return the samples from `start` to before `end` of tensors (N, ...) of any nesting."""
    return map_tensors(lambda tensor: tensor[start:end], inputs)


def joined(parts: Sequence[Any]) -> Any:
    """Return tensors (n, ...) of any nesting, the same in all parts, one after the other."""
    if len(parts) == 1:
        return parts[0]
    others = [tensors_of(part) for part in parts[1:]]
    return map_tensors(lambda tensor: torch.cat([tensor, *(next(other) for other in others)]), parts[0])
