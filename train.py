"""Train a model from a config: python train.py -c config.json."""

from __future__ import annotations

import argparse

from parse_config import ConfigParser, CustomArg
from slots import SLOTS
from trainer import Trainer
from utils import prepare_device, seed_everything, told_to_user
from utils.checkpoint import load_checkpoint, load_weights
from utils.ema import best_weights


def main(config: ConfigParser) -> None:
    """Build the objects that the config names and hand them to the trainer."""
    logger = config.get_logger("train", config["trainer"]["verbosity"])
    device, _ = prepare_device(config["n_gpu"], config["device"])

    data_loader = config.init_obj("data_loader")
    config.resolve("data_loader", data_loader.resolved_args)
    valid_data_loader = data_loader.split_validation()
    logger.info(f"device {device}; {data_loader.n_samples:,} training samples")

    seed_everything(config["seed"])
    model = config.init_obj("arch")
    model.adapt(data_loader)
    if config.init_from:
        load_weights(model, best_weights(load_checkpoint(config.init_from)), str(config.init_from))
    model = model.to(device)
    criterion = config.init_obj("loss")
    metrics = config.init_obj("metrics")

    # Only what is trained is given to the optimizer. Delete the lr_scheduler section for a constant rate.
    trainable_params = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = config.init_obj("optimizer", params=trainable_params)
    lr_scheduler = config.init_obj("lr_scheduler", optimizer=optimizer)

    trainer = Trainer(
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
    trainer.train()


def parse_args(argv: list[str] | None = None) -> ConfigParser:
    """Return the config that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("-c", "--config", help="config file (JSON or YAML)")
    parser.add_argument("-r", "--resume", help="run directory or checkpoint to go on from")
    parser.add_argument("--resume-latest", action="store_true", help="go on with the newest run, or start one")
    parser.add_argument("--allow-inexact", action="store_true", help="resume although it cannot be exact")
    parser.add_argument("-d", "--device", help="auto, cpu, mps, cuda, cuda:N or N")
    options = [
        CustomArg(["--lr", "--learning_rate"], type=float, target="optimizer;args;lr"),
        CustomArg(["--bs", "--batch_size"], type=int, target="data_loader;args;batch_size"),
    ]
    return ConfigParser.from_args(parser, options, slots=SLOTS, argv=argv)


if __name__ == "__main__":
    with told_to_user():
        main(parse_args())
