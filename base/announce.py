"""What a run says of itself: where it begins, after each logged step and epoch, and at its end."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from base.freezing import describe_groups
from distributed import world_size
from logger import epoch_line, epoch_row, named

if TYPE_CHECKING:
    from base.base_trainer import BaseTrainer


def announce_start(trainer: BaseTrainer) -> None:
    """Log what is trained on what, or from where it is resumed."""
    trainer.loop.warn_of_what_is_ignored()
    trainer.board.start()
    for line in describe_groups(trainer.optimizer, trainer.model, trainer.freezing):
        trainer.logger.debug(line)
    num_samples = f"; {trainer.loop.loader.n_samples:,} training samples" if trainer.loop.is_followed else ""
    trainer.logger.info(f"device {trainer.device}{num_samples}{_shared(trainer)}")
    if trainer.config.resume:
        where = f"epoch {trainer.position.epoch}, step {trainer.position.step_in_epoch}"
        trainer.logger.info(f"resumed {trainer.config.resume} at {where}")
        if trainer.position.epoch > trainer.epochs:
            further = f"for more: --set trainer.epochs={2 * trainer.epochs}"
            trainer.logger.warning(f"all {trainer.epochs} epochs are done, so nothing is left to train; {further}")
        return
    parameters = list(trainer.model.parameters())
    total = sum(parameter.numel() for parameter in parameters)
    trainable = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    trainer.logger.debug(f"{trainer.model}")  # all its lines are for info.log
    trainer.logger.info(f"model {type(trainer.model).__name__}: {total:,} parameters, {trainable:,} trainable")
    trainer.logger.info(f"run directory: {trainer.checkpoint_dir}")


def _shared(trainer: BaseTrainer) -> str:
    """Return what of a step one process computes; nothing of a run of one process."""
    if world_size() == 1 or not trainer.loop.is_followed:
        return ""
    size = trainer.loop.loader.batch_size * trainer.options.grad_accum_steps
    return f"; {world_size()} processes: a step has {size:,} samples, {size / world_size():,.1f} a process"


def announce_step(trainer: BaseTrainer, values: dict[str, float]) -> None:
    """Log values of the optimizer step that has just been made: curves "step/NAME", and a line for info.log alone."""
    epoch, step = trainer.position.epoch, trainer.position.step_in_epoch + 1
    if trainer.run_log is not None:
        trainer.run_log.log_step(epoch, trainer.position.global_step + 1, values)
        trainer.logger.debug(f"epoch {epoch}/{trainer.epochs}  step {step}  {named(values, '  ')}")


def announce_epoch(trainer: BaseTrainer, log: dict[str, float], is_best: bool) -> None:
    """Log the values of the epoch that is done: a row of a table on a terminal, a line elsewhere."""
    monitor, epoch = trainer.monitor, trainer.position.epoch
    for name in (name for name, value in log.items() if not math.isfinite(value)):
        trainer.logger.warning(f"epoch {epoch}: {name} is {log[name]}; that is never the best")
    where, width = f"{epoch}/{trainer.epochs}", 2 * len(str(trainer.epochs)) + 1
    row = *epoch_row(where.rjust(width), log, monitor.metric), is_best
    trainer.logger.info(epoch_line(f"epoch {where}", log, monitor.metric, is_best), extra={"row": row})
    best = f"best {monitor.metric} {monitor.best:.4g} in epoch {monitor.best_epoch}" if monitor.best_epoch else ""
    trainer.display.end_epoch(epoch, best)


def announce_end(trainer: BaseTrainer) -> None:
    """Log why a run that is done has ended, and which epoch was the best."""
    trainer.board.end()
    monitor = trainer.monitor
    if monitor.should_stop:
        trainer.logger.info(f"stopped early: no better {monitor.metric} for {monitor.early_stop} epochs")
    if monitor.is_on:
        best = f"{monitor.metric} {monitor.best:.4g} in epoch {monitor.best_epoch}"
        trainer.logger.info(f"best: {best}; checkpoints are in {trainer.checkpoint_dir}")
