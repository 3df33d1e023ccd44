#!/usr/bin/env python3
"""Train a model from a config: python train.py -c config.json."""

from __future__ import annotations

import argparse
import signal

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports ends without a traceback

from torch import nn

from base import param_groups, prepare_model
from distributed import launched
from parse_config import ConfigParser, CustomArg
from parse_config.command_line import add_run_flags
from preflight import choose_batch_size, try_out
from slots import SLOTS
from speed import fast_kernels, set_process_modes
from trainer import Trainer
from utils import prepare_device, seed_everything, to_device

OPTIONS = [
    CustomArg(["--lr", "--learning_rate"], type=float, target="optimizer;args;lr"),
    CustomArg(["--bs", "--batch_size"], type=int, target="data_loader;args;batch_size"),
]


def build_trainer(config: ConfigParser) -> Trainer:
    """Build the objects that the config names, and their trainer."""
    options = config.section("trainer")
    device, _ = prepare_device(config["n_gpu"], config["device"])
    set_process_modes(options, device)

    seed_everything(config["seed"])
    data_loader = config.init_obj("data_loader")
    valid_data_loader = data_loader.split_validation()
    config.facts = to_device(config.facts, device)

    seed_everything(config["seed"])  # again: initial weights do not depend on what the loader drew
    model = prepare_model(config.init_obj("arch"), data_loader, config, device)
    criterion = config.init_obj("loss")
    if isinstance(criterion, nn.Module):
        criterion = criterion.to(device)
    metrics = config.init_obj("metrics")

    # Delete the config's lr_scheduler section for a constant learning rate. With several optimizers, these are dicts.
    params = param_groups(model, config["optimizer"])
    config.resolve("optimizer", fast_kernels(config.init_ftn("optimizer"), params, options))
    optimizer = config.init_obj("optimizer", params=params)
    lr_scheduler = config.init_obj("lr_scheduler", optimizer=optimizer)

    trainer_class = config.find("trainer.type") or Trainer
    return trainer_class(
        model,
        criterion,
        metrics,
        optimizer,
        config=config,
        device=device,
        data_loader=data_loader,
        valid_data_loader=valid_data_loader,
        lr_scheduler=lr_scheduler,
    )


def main(config: ConfigParser) -> None:
    """Train, or resume training, as the config says; with --check or --lr-find, only try it out."""
    choose_batch_size(config, build_trainer)
    if config.num_folds:
        from prediction.kfold import table, train_folds  # which an ordinary run does not need
        from trainer.batch import run_batch

        print("\n".join(table(train_folds(config, config.num_folds, build_trainer, run_batch))))
        return
    if config.is_rehearsal:
        print("\n".join(try_out(config, build_trainer)))
    else:
        trainer = build_trainer(config)
        trainer.train()


def parse_args(argv: list[str] | None = None) -> ConfigParser:
    """Return the config that the command line asks for. Raises UserErrors."""
    parser = argparse.ArgumentParser(prog="train.py", description=__doc__, allow_abbrev=False)
    add_run_flags(parser)
    return ConfigParser.from_args(parser, OPTIONS, slots=SLOTS, argv=argv)


if __name__ == "__main__":
    with launched():
        main(parse_args())
