"""This project: config.json, with a checkpoint after each epoch."""

from __future__ import annotations

from pathlib import Path

import train
from contenders.mnist import Task
from trainer import Trainer
from turns import EPOCHS, NextTurn

CONFIG = Path(__file__).resolve().parents[2] / "config.json"


def mnist(next_turn: NextTurn, task: Task) -> None:
    """Train with all features."""
    train_in_turns(with_all_features(task), next_turn)


def with_all_features(task: Task) -> Trainer:
    """Return a trainer with two metrics, TensorBoard, metrics.jsonl, a progress bar, and a checkpoint an epoch."""
    return train.build_trainer(_config(task, "trainer.save_period=1", "trainer.early_stop=null"))


def with_features_off(task: Task) -> Trainer:
    """Return a trainer without metrics, TensorBoard and checkpoints."""
    off = ["metrics=[]", "trainer.tensorboard=false", f"trainer.log_every_steps={10**9}"]
    off += [f"trainer.save_period={EPOCHS}", "trainer.monitor=off", "trainer.early_stop=null"]
    return train.build_trainer(_config(task, *off))


def train_in_turns(trainer: Trainer, next_turn: NextTurn) -> None:
    """Train, but wait for `next_turn` before each epoch."""
    train_epoch = trainer._train_epoch

    def train_epoch_in_turn(epoch: int) -> dict[str, float]:
        assert trainer.checkpoints
        trainer.checkpoints.wait()  # what is written in the background belongs to the epoch that was saved
        next_turn()
        return train_epoch(epoch)

    trainer._train_epoch = train_epoch_in_turn  # type: ignore[method-assign]
    trainer.train()


def _config(task: Task, *settings: str) -> train.ConfigParser:
    data = [f"data_loader.args.data_dir={task.data_dir}", "data_loader.args.source=mnist"]
    data += [f"data_loader.args.batch_size={task.batch_size}"]
    run = ["n_gpu=0", "lr_scheduler=null", f"trainer.epochs={EPOCHS}", f"trainer.save_dir={task.out}"]
    return train.parse_args(["-c", str(CONFIG), *(arg for item in [*data, *run, *settings] for arg in ("--set", item))])
