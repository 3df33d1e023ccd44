#!/usr/bin/env python3
"""Average the weights of several checkpoints into one: python average.py -r saved/NAME/RUN --best 3."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports ends without a traceback

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

from base import counted
from checkpoint.average import average_checkpoints, chosen_checkpoints
from checkpoint.file import BEST, serialise
from parse_config import ConfigParser
from prediction.loading import trained_model
from slots import SLOTS
from speed import input_format, prefetch
from trainer.batch import unpack
from utils import ConfigError, exit_on_user_error, prepare_device, seed_everything
from utils.errors import writing_to
from utils.files import write_atomic


def main(argv: Sequence[str] | None = None) -> Path:
    """Write the averaged checkpoint, and return its path. Raises UserErrors."""
    cli = make_parser().parse_args(argv)
    paths = chosen_checkpoints(cli.resume, cli.best, BEST)
    if len(paths) < 2:
        raise ConfigError("an average needs several checkpoints: give more after -r, or --best N")
    config = parse_config(cli, paths[0])
    logger = config.get_logger("average")
    for path in paths:
        logger.info(f"averaging {path}")
    checkpoint = average_checkpoints(paths)
    model = trained_model(config, checkpoint, paths[0], torch.device("cpu"))
    if any(isinstance(module, _BatchNorm) for module in model.modules()):
        logger.info("measuring the statistics of BatchNorm on the training data")
        measure_batch_norm(model, config)
        checkpoint["model"] = {name: value.cpu() for name, value in model.state_dict().items()}
    output = Path(cli.output) if cli.output else paths[0].with_name("averaged.pth")
    with writing_to(output.parent):
        write_atomic(output, serialise(checkpoint))
    logger.info(f"wrote {output}; python test.py -r {output}{'' if output.parent == paths[0].parent else ' -c CONFIG'}")
    return output


def measure_batch_norm(model: nn.Module, config: ConfigParser) -> None:
    """Replace the running statistics of `model` by means over one epoch of training batches; it stays on its device."""
    device, _ = prepare_device(config["n_gpu"], config["device"])
    seed_everything(config["seed"])
    data_loader = config.init_obj("data_loader")
    data_loader.split_validation()

    def inputs() -> Iterator[tuple[Any]]:
        for batch, _ in prefetch(counted(data_loader), device, input_format(model)):
            yield (unpack(batch)[0],)  # in a tuple, of which torch passes on the first

    model.to(device)
    with torch.no_grad():
        update_bn(inputs(), model)


def parse_config(cli: argparse.Namespace, checkpoint: Path) -> ConfigParser:
    """Return the config of a checkpoint's run, or the one that the command line names."""
    parser = argparse.ArgumentParser(prog="average.py", allow_abbrev=False)
    for flags in (("-r", "--resume"), ("-c", "--config"), ("-d", "--device")):
        parser.add_argument(*flags)
    others = [arg for flag, value in (("-c", cli.config), ("-d", cli.device)) if value for arg in (flag, value)]
    return ConfigParser.from_args(parser, slots=SLOTS, argv=["-r", str(checkpoint), *others], prefer=BEST)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="average.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("-r", "--resume", nargs="+", required=True, metavar="RUN", help="runs, or checkpoints")
    parser.add_argument("--best", type=int, metavar="N", help="the N best epochs of each run; default: its best one")
    parser.add_argument("-o", "--output", metavar="FILE", help="default: averaged.pth beside the first checkpoint")
    parser.add_argument("-c", "--config", help="another config than the first run's own")
    parser.add_argument("-d", "--device", help="auto, cpu, mps, cuda, cuda:N or N")
    return parser


if __name__ == "__main__":
    with exit_on_user_error():
        main()
