#!/usr/bin/env python3
"""Export a run's model, and check that it gives the same outputs: python export.py -r saved/NAME/RUN --format onnx."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Iterable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports ends without a traceback

import torch
from torch.utils.data import DataLoader

from checkpoint.file import BEST
from deploy.about import about_data, about_outputs, about_run
from deploy.calls import calls_of
from deploy.card import write_card
from deploy.folder import new_folder
from deploy.formats import FORMATS, Trained, check_libraries, export_model
from deploy.parity import check_parity
from parse_config import ConfigParser
from prediction.loading import given_checkpoint, in_order, test_loader, trained_model
from prediction.meaning import kind_of
from slots import SLOTS
from trainer.batch import run_batch
from utils import DataError, exit_on_user_error

MAX_BATCHES = 100  # compared with the exported model
NUM_SHOWN = 8  # batches from which it is learned how the model is called


def main(config: ConfigParser, name: str, folder: Path | None = None) -> Path:
    """Write the model in the format `name` into `folder`, by default one in the run directory; return it."""
    logger = config.get_logger("export")
    check_libraries(name)
    path, checkpoint = given_checkpoint(config)
    folder = folder or path.parent / f"export-{name}"
    data_loader, batches, split = held_out(config)
    model = trained_model(config, checkpoint, path, torch.device("cpu"))
    calls = partial(calls_of, model, partial(run_batch, model, config.init_obj("loss")))
    first = list(islice(calls(batches), NUM_SHOWN))
    trained = Trained(model, first, partial(config.init_obj, "arch"), config.facts.get("table"))
    with new_folder(folder) as temp:
        exported = export_model(name, trained, temp, folder.with_name(f"{folder.name}.log"))
        parity = check_parity(model, exported.run, islice(calls(batches), MAX_BATCHES), first)
        about: dict[str, Any] = {"format": name, "file": FORMATS[name].file, "split": split}
        about |= {"epoch": checkpoint.get("epoch")} | about_run(path) | about_data(data_loader, config.facts)
        arch = config.init_ftn("arch")  # a class, or a function that returns a model
        about |= {"arch_module": arch.func.__module__, "arch_args": arch.keywords}
        about |= {key: value for key, value in exported._asdict().items() if key != "run"}
        about |= about_outputs(kind_of(config["loss"]), about["outputs"], about["classes"])
        about |= {"check": parity._asdict(), "config": config.config, "facts": config.facts}
        write_card(temp, about)
    logger.info(f"{folder}: {path.name}, epoch {about['epoch']}, exported as {name}")
    logger.info(
        f"the same on {parity.num_batches} batches ({parity.num_samples:,} samples) of the {split} data: largest "
        f"difference {parity.absolute:.3g} absolute, {parity.relative:.3g} relative"
    )
    return folder


def held_out(config: ConfigParser) -> tuple[DataLoader[Any], Iterable[Any], str]:
    """Return a loader, its batches of the test, or else validation or training split, and the name of that split."""
    try:
        data_loader, split = test_loader(config), "test"
    except DataError:  # there may be no test split
        data_loader, split = config.init_obj("data_loader"), "training"
        valid_data_loader = data_loader.split_validation()
        if valid_data_loader is not None:
            return data_loader, valid_data_loader, "validation"
    return data_loader, in_order(data_loader), split


def parse_args(argv: list[str] | None = None) -> tuple[ConfigParser, str, Path | None]:
    """Return the config of the run, the format and the folder that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("-r", "--resume", help="run directory (its best checkpoint) or checkpoint")
    parser.add_argument("-c", "--config", help="another config than the run's own")
    parser.add_argument("--format", choices=FORMATS, default="onnx", help="default: onnx")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="default: RUN/export-FORMAT")
    config = ConfigParser.from_args(parser, slots=SLOTS, argv=argv, prefer=BEST)
    cli = parser.parse_args(argv)
    return config, cli.format, cli.output


if __name__ == "__main__":
    with exit_on_user_error():
        main(*parse_args())
