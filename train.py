#!/usr/bin/env python3
"""Train a model from a config: python train.py -c config.json."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from torch import nn

from parse_config import ConfigParser, CustomArg, add_override_flags
from slots import SLOTS
from trainer import PROBE, Trainer, largest_batch_size, rehearse
from utils import prepare_device, seed_everything, told_to_user, write_json
from utils.acceleration import accelerate, fast_kernels
from utils.checkpoint import load_checkpoint
from utils.cli import add_run_flags
from utils.config_layers import ConfigLayers
from utils.device import free_memory
from utils.ema import best_weights
from utils.load_parts import load_weights
from utils.run_lock import refuse_if_locked
from utils.torch_modes import set_torch_modes

OPTIONS = [
    CustomArg(["--lr", "--learning_rate"], type=float, target="optimizer;args;lr"),
    CustomArg(["--bs", "--batch_size"], type=int, target="data_loader;args;batch_size"),
]


def build_trainer(config: ConfigParser) -> Trainer:
    """Build the objects that the config names and the trainer that trains them."""
    logger = config.get_logger("train", config["trainer"]["verbosity"])
    if config["data_loader"].get("args", {}).get("batch_size") == "auto":
        batch_size = find_batch_size(config)
        config.resolve("data_loader", {"batch_size": batch_size})
        logger.info(f"batch_size: {batch_size} is the largest that fits")
    set_torch_modes(config["trainer"])
    seed_everything(config["seed"])
    device, _ = prepare_device(config["n_gpu"], config["device"])

    data_loader = config.init_obj("data_loader")
    config.resolve("data_loader", data_loader.resolved_args)
    valid_data_loader = data_loader.split_validation()
    if config["trainer"]["overfit_batches"]:
        valid_data_loader = data_loader.overfit(config["trainer"]["overfit_batches"])
    logger.info(f"device {device}; {data_loader.n_samples:,} training samples")

    seed_everything(config["seed"])  # once more: a model begins the same whatever the data drew
    model = config.init_obj("arch")
    if not config.resume:
        model.adapt(data_loader)
    if config.init_from:
        load_weights(model, best_weights(load_checkpoint(config.init_from)), str(config.init_from))
    model = model.to(device)
    accelerate(model, config["trainer"], device)
    criterion = config.init_obj("loss")
    if isinstance(criterion, nn.Module):
        criterion = criterion.to(device)
    metrics = config.init_obj("metrics")

    # Only what is trained is given to the optimizer. Delete the lr_scheduler section for a constant rate.
    trainable_params = [parameter for parameter in model.parameters() if parameter.requires_grad]
    kernels = fast_kernels(config.init_ftn("optimizer"), trainable_params, config["trainer"])
    config.resolve("optimizer", kernels)
    optimizer = config.init_obj("optimizer", params=trainable_params)
    lr_scheduler = config.init_obj("lr_scheduler", optimizer=optimizer)

    return Trainer(
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


def find_batch_size(config: ConfigParser) -> int:
    """Return the largest batch size that fits, found with a trainer that is thrown away."""
    config.resolve("data_loader", {"batch_size": PROBE})
    batch_size = largest_batch_size(build_trainer(config))
    free_memory()
    return batch_size


def main(config: ConfigParser) -> None:
    """Train, or go on training, as the config says."""
    if config.resume:  # told before the data is loaded; --resume-latest has only now found its run
        refuse_if_locked(config.save_dir)
    build_trainer(config).train()


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line, without the options that override keys of the config."""
    parser = argparse.ArgumentParser(prog="train.py", description=__doc__, allow_abbrev=False)
    add_run_flags(parser)
    return parser


def parse_args(argv: list[str] | None = None) -> ConfigParser:
    """Return the config that the command line asks for. Raises ConfigError, CheckpointError."""
    return ConfigParser.from_args(make_parser(), OPTIONS, slots=SLOTS, argv=argv)


def run(argv: list[str]) -> None:
    """Do what the command line says: train, or tell something instead. Raises UserErrors."""
    parser = make_parser()
    add_override_flags(parser, OPTIONS)
    asked = parser.parse_args(argv)
    if asked.schema or asked.print_completion:
        describe_config(asked, parser)
        return
    is_training = not (asked.print_config or asked.check)
    if asked.resume and not asked.config and is_training:  # told at once, before the config and the data are looked at
        refuse_if_locked(Path(asked.resume))
    config = parse_args(argv)
    if asked.print_config:
        for path, value, source in config.layers.origins():
            print(f"{path} = {json.dumps(value)}  # {source}")
    elif asked.check:
        print("\n".join(rehearse(build_trainer(config))))
    else:
        main(config)


def describe_config(asked: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Write the JSON schema of configs for editors, or print a completion script for a shell."""
    from utils.completion import completion_script  # these import what training does not
    from utils.config_docs import dotted_paths, json_schema

    if asked.schema:
        write_json(json_schema(SLOTS), "config.schema.json")
    else:
        layers = ConfigLayers()
        layers.add_file(Path(asked.config or "config.json"))
        print(completion_script(parser, asked.print_completion, dotted_paths(SLOTS, layers.config)))


if __name__ == "__main__":
    with told_to_user():
        run(sys.argv[1:])
