#!/usr/bin/env python3
"""Evaluate a checkpoint on the held-out test split: python test.py -r saved/NAME/RUN."""

from __future__ import annotations

import argparse
import signal

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports ends without a traceback

from torch import nn

from base import counted
from checkpoint.file import BEST
from checkpoint.records import record_test
from logger import follow
from logger.pictures import write_test_figures
from parse_config import ConfigParser, CustomArg
from prediction.inspection import columns_of, draw_figures
from prediction.loading import given_checkpoint, in_order, test_loader, trained_model
from slots import SLOTS
from trainer import batch as batch_functions
from trainer.evaluation import evaluate
from utils import MetricTracker, exit_on_user_error, prepare_device

OPTIONS = [CustomArg(["--bs", "--batch_size"], type=int, target="data_loader;args;batch_size")]


def main(config: ConfigParser, draws: bool = False) -> dict[str, float]:
    """Print and return the loss and metrics of the checkpoint over the whole test split; `draws`: figures too."""
    logger = config.get_logger("test")
    device, _ = prepare_device(config["n_gpu"], config["device"])
    path, checkpoint = given_checkpoint(config)
    data_loader = test_loader(config)
    model = trained_model(config, checkpoint, path, device)
    criterion = config.init_obj("loss")
    if isinstance(criterion, nn.Module):
        criterion = criterion.to(device)
    metrics = MetricTracker("loss", metric_ftns=config.init_obj("metrics"), device=device)

    resolved = getattr(data_loader, "resolved_args", {}).items()
    data = "".join(f", {key} {value}" for key, value in resolved if not isinstance(value, dict))
    num_samples = getattr(data_loader, "n_samples", len(data_loader.dataset))
    logger.info(f"{path}, epoch {checkpoint.get('epoch')}, on {num_samples:,} test samples{data}")
    batches = in_order(data_loader)
    result = evaluate(model, criterion, follow(counted(batches), "test", len(batches)), metrics, device)
    for name, value in result.items():
        logger.info(f"{name}: {value:.6f}")
    if config.resume:  # with the run's own config, not another
        record_test(path, checkpoint.get("epoch"), result, num_samples)
    if draws:
        columns, step = columns_of(data_loader, config.facts), checkpoint["position"]["global_step"]
        figures = draw_figures(model, criterion, batches, columns, device, batch_functions)
        write_test_figures(path.parent / "figures", figures, step)
        logger.info(f"{path.parent / 'figures'}, and TensorBoard: {', '.join(f'test_{name}.png' for name in figures)}")
    return result


def parse_args(argv: list[str] | None = None) -> tuple[ConfigParser, bool]:
    """Return the config of the run that the command line names, and whether to draw figures."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("-r", "--resume", help="run directory (its best checkpoint) or checkpoint")
    parser.add_argument("-c", "--config", help="another config than the run's own")
    parser.add_argument("-d", "--device", help="auto, cpu, mps, cuda, cuda:N or N")
    parser.add_argument("--figures", action="store_true", help="draw figures too, as files and in TensorBoard")
    config = ConfigParser.from_args(parser, OPTIONS, slots=SLOTS, argv=argv, prefer=BEST)
    return config, parser.parse_args(argv).figures


if __name__ == "__main__":
    with exit_on_user_error():
        main(*parse_args())
