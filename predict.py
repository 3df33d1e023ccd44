#!/usr/bin/env python3
"""Predict for new inputs: python predict.py -r saved/NAME/RUN --input new.csv --output out.csv.

In Python: predictor = Predictor.load("saved/NAME/RUN"), then predictor(rows) or predictor(images).
"""

from __future__ import annotations

import argparse
import signal
import sys

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports ends without a traceback

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from base import BaseDataLoader, Chunk, NewInputs
from base.new_inputs import joined, rebatched, slice_of
from logger import setup_logging
from prediction import KINDS, Kind, Meaning, OutputFile, load_run
from prediction.meaning import HOW, kind_of
from speed import input_format, prefetch
from trainer.batch import predict_batch
from utils import ConfigError, DataError, exit_on_user_error
from utils.nested import tensors_of

ROWS_SKIPPED = 8  # exit code: the output is written, but some input rows are missing from it


def load_model(run: str | Path, device: str | None = None) -> nn.Module:
    """Return the model of a checkpoint, or of a run directory's best one, in eval mode.

    The weights are those that test.py uses. `device` is auto, cpu, mps, cuda or cuda:N, by default the config's.
    Raises UserErrors.
    """
    return load_run(run, device).model


class Predictor:
    """A model, with all that turns new inputs into batches, and outputs into names and values.

    Several threads may call it: it has no state that a call changes.
    """

    def __init__(self, model: nn.Module, inputs: NewInputs, meaning: Meaning, batch_size: int) -> None:
        """`model` is in eval mode; `batch_size` is how many samples it gets at a time."""
        self.model, self.inputs, self.meaning, self.batch_size = model, inputs, meaning, batch_size
        self.device = next((tensor.device for tensor in tensors_of(model.state_dict())), torch.device("cpu"))
        self.images = input_format(model)

    @classmethod
    def load(
        cls, run: str | Path, device: str | None = None, *, batch_size: int | None = None, outputs: Kind | None = None
    ) -> Predictor:
        """Load a checkpoint, or the best one of a run directory; batch size and kind of outputs default to the run's.

        With the config's batch size, outputs equal those of test.py to the bit. `outputs` says what they
        are if the loss does not (see prediction/meaning.py). Raises UserErrors.
        """
        loaded = load_run(run, device)
        config = loaded.config
        make_loader = config.init_ftn("data_loader")
        make_inputs = getattr(make_loader.func, "new_inputs", BaseDataLoader.new_inputs)  # a plain DataLoader: tensors
        args = make_loader.keywords
        inputs = make_inputs(args, loaded.facts)
        kind = outputs or kind_of(config["loss"])
        class_names = inputs.class_names or loaded.facts.get("class_names")
        return cls(
            loaded.model,
            inputs,
            Meaning(kind, inputs.target_names, class_names),
            batch_size or args.get("batch_size", 1),
        )

    def __call__(self, values: Any) -> dict[str, np.ndarray]:
        """Return the predictions for rows or images in memory, one or many, as columns (N,) by name.

        A regression gives values by the names of the targets; a classifier the class and `p_NAME` of each class.
        Raises DataError, with the place, where a value is wrong.
        """
        return self.meaning.columns(self.outputs(values))

    def outputs(self, values: Any) -> Any:
        """Return what the model itself gives for rows or images in memory."""
        return self._outputs(self.inputs(values))

    def chunks(self, path: Path, keep: list[str]) -> Iterator[tuple[pa.Table, Chunk]]:
        """Yield kept columns and predictions of a file or folder, in order and in flat memory, with their chunks."""
        for chunk in rebatched(self.inputs.chunks(path, keep, self.batch_size), self.batch_size):
            found = self.meaning.columns(self._outputs(chunk.inputs)) if chunk.size else {}
            # A target that is kept for comparison keeps its name.
            named = {f"{name}_predicted" if name in keep else name: column for name, column in found.items()}
            kept = {name: chunk.kept.column(name) for name in chunk.kept.schema.names}
            yield pa.table(kept | {name: pa.array(column) for name, column in named.items()}), chunk

    @torch.inference_mode()
    def _outputs(self, inputs: Any) -> Any:
        size = len(next(tensors_of(inputs)))
        batches = (slice_of(inputs, start, start + self.batch_size) for start in range(0, size, self.batch_size))
        return joined([predict_batch(self.model, batch) for batch in prefetch(batches, self.device, self.images)])


def main(args: argparse.Namespace) -> int:
    """Write the predictions; return the exit code."""
    output = OutputFile(args.output)
    if args.output.exists() and args.input.exists() and args.output.samefile(args.input):
        raise ConfigError(f"--output: {args.output} is the input")
    predictor = Predictor.load(args.resume, args.device, batch_size=args.batch_size, outputs=args.outputs)
    print(f"{args.resume}: {HOW[predictor.meaning.kind]} ({predictor.meaning.kind})")
    num_skipped = 0
    with output:
        for table, chunk in predictor.chunks(args.input, list(dict.fromkeys(args.id))):
            if chunk.mistakes and not args.skip_bad_rows:
                raise DataError(f"{chunk.mistakes[0]}; --skip-bad-rows leaves such rows out")
            for mistake in chunk.mistakes:
                print(f"skipped: {mistake}", file=sys.stderr)
            num_skipped += len(chunk.mistakes)
            if chunk.size:
                output.write(table)
        if output.num_rows == 0:
            raise DataError(f"{args.input}: nothing to predict for" + f"; {num_skipped:,} bad rows" * bool(num_skipped))
    guarded = f"; {output.num_guarded:,} texts that look like formulas got a leading '" if output.num_guarded else ""
    print(f"{args.output}: {output.num_rows:,} predictions, {num_skipped:,} skipped{guarded}")
    return ROWS_SKIPPED if num_skipped else 0


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(prog="predict.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("-r", "--resume", required=True, help="run directory (its best checkpoint) or checkpoint")
    parser.add_argument("--input", required=True, type=Path, help="new.csv, new.parquet, a folder, or an image")
    parser.add_argument("--output", required=True, type=Path, help="out.csv or out.parquet")
    parser.add_argument(
        "--id", action="append", default=[], metavar="COLUMN", help="a column of the input to keep; repeatable"
    )
    parser.add_argument("--batch-size", type=_positive, help="default: the config's, as in test.py")
    parser.add_argument("-d", "--device", help="auto, cpu, mps, cuda, cuda:N or N")
    parser.add_argument("--skip-bad-rows", action="store_true", help=f"skip bad rows, and exit with {ROWS_SKIPPED}")
    parser.add_argument("--outputs", choices=KINDS, help="what the model's outputs are, if its loss does not say")
    return parser.parse_args(argv)


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r}; give a number of samples, at least 1")
    return int(text)


if __name__ == "__main__":
    with exit_on_user_error():
        setup_logging()
        sys.exit(main(parse_args()))
