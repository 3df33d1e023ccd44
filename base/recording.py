"""What a run leaves behind while it trains: logs, status, checkpoints; and where it is, when something ends it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import astuple
from functools import partial
from typing import TYPE_CHECKING, Any

from checkpoint.file import LATEST
from checkpoint.records import record_process
from checkpoint.run_status import progress, run_number, status_reported
from checkpoint.shard_writer import ShardWriter
from checkpoint.shards import remove_unnamed
from checkpoint.writer import CheckpointWriter, what_is_kept
from distributed import is_main, world_size
from distributed.collective import broadcast
from logger import RunLog
from trackers.start import mirrored
from utils import OutOfMemoryError, Stopped, UserError
from utils.device import memory_advice
from utils.errors import WorkerDiedError
from utils.failures import is_out_of_memory

if TYPE_CHECKING:
    from base.base_trainer import BaseTrainer


@contextmanager
def recorded(trainer: BaseTrainer, log_sizes: dict[str, int] | None, check_held: Callable[[], None]) -> Iterator[None]:
    """Write logs, checkpoints and status.json into the run directory; of several processes, the first one does.

    `log_sizes` are the lengths of the logs to go on from, None for a new run. Raises RunDirError.
    """
    run_dir, options = trainer.checkpoint_dir, trainer.options
    writer: Callable[..., CheckpointWriter] = CheckpointWriter
    if trainer.strategy.saves_shards:
        writer = partial(ShardWriter, timeout_s=options.process_timeout_s)
    if not is_main():
        shards = writer(run_dir, None, lambda: None) if trainer.strategy.saves_shards else nullcontext()
        with shards as trainer.checkpoints:
            yield
        return
    number = run_number(run_dir, log_sizes)
    trainer.config.start_logging()
    record_process(run_dir, trainer.environment, trainer.config.resume)
    trainer.logger.info(what_is_kept(options.keep_checkpoints, options.keep_best))
    with (
        mirrored(run_dir, [name for name in trainer.options.writers if name != "tensorboard"]),
        status_reported(run_dir, number, partial(_progress, trainer), trainer._final_state, check_held),
        RunLog(run_dir, trainer.writer, number, log_sizes, check_held) as trainer.run_log,
        writer(run_dir, options.keep_checkpoints, trainer.run_log.sync) as trainer.checkpoints,
        _nothing_to_resume_before_the_first_step(trainer),
    ):
        yield


def _progress(trainer: BaseTrainer) -> dict[str, Any]:
    return progress(trainer.position.state_dict(), trainer.monitor.state_dict(), trainer.config.config)


@contextmanager
def _nothing_to_resume_before_the_first_step(trainer: BaseTrainer) -> Iterator[None]:
    """Where a new run fails before its first step, delete its initial checkpoint: it would fail there again."""
    try:
        yield
    except Exception as error:
        can_go_on = isinstance(error, Stopped | WorkerDiedError)
        if not can_go_on and trainer.config.resume is None and trainer.position.global_step == 0:
            with suppress(OSError):  # the disk may be what failed
                (trainer.checkpoint_dir / LATEST).unlink(missing_ok=True)
                remove_unnamed(trainer.checkpoint_dir)
        raise


@contextmanager
def saved_when_stopped(trainer: BaseTrainer) -> Iterator[None]:
    """Save where the run is when a signal or a dead worker ends it; explain when memory ran out.

    Raises OutOfMemoryError, and what ended the run; RunDirError where it cannot be saved.
    """
    try:
        yield
    except (Stopped, WorkerDiedError) as error:
        if isinstance(error, Stopped) or world_size() == 1:  # all stop, but a worker dies of one process
            _save_stopped(trainer)
        raise
    except Exception as error:
        if isinstance(error, UserError) or not is_out_of_memory(error):
            raise
        loader_args = trainer.config["data_loader"].get("args", {})
        raise OutOfMemoryError(memory_advice(error, trainer.device, loader_args)) from error


def _save_stopped(trainer: BaseTrainer) -> None:
    """Save where the run is, unless that is saved, and wait: a save that fails is reported rather than the stop."""
    if not trainer.loop.can_be_saved:
        trainer.logger.warning("this loop cannot be saved here: what came after the last checkpoint is lost")
    elif trainer.saved_at != astuple(trainer.position):
        trainer._save(None)
    wait_for_save(trainer)


def wait_for_save(trainer: BaseTrainer) -> None:
    """Wait until the save is written; the other processes wait too, as torchrun ends all when one has exited."""
    if trainer.checkpoints is not None:
        trainer.checkpoints.wait()
    broadcast(None)
