"""Several processes: this project beside torch's DDP in a loop written by hand, and the price of virtual_ranks."""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import train
from contenders.hand_written import TensorBatches, with_levers
from contenders.mnist import LR, Task, unpack
from contenders.ours import CONFIG
from distributed import is_main, launched, rank, world_size
from distributed.launch import wait_for_all
from report import Section, Target, ratio, table
from trainer import Trainer

ROOT = Path(__file__).resolve().parent.parent
HAND_WRITTEN, OURS = "hand-written DDP", "this project"
OFF, VIRTUAL = "this project, features off", "this project, virtual_ranks 12"
FEATURES_OFF = ("metrics=[]", "trainer.tensorboard=false", f"trainer.log_every_steps={10**9}")
BATCH_SIZE, NUM_STEPS, COUNTS = 128, 100, (1, 2, 3, 4)
TEXT = f"""\
{NUM_STEPS} steps each in turn, all in the same processes, one thread each, in three times the rounds; {BATCH_SIZE}
samples a step, over all processes. No validation and no checkpoints; features: two metrics, TensorBoard,
`metrics.jsonl`, and a progress bar, which stays with features off. With more processes than cores the table says what
they cost, not what they gain. `virtual_ranks` computes each batch in 12 slices, for the same bits by any number of
processes."""


def part(options: argparse.Namespace) -> Section:
    """Race the contenders by each number of processes."""
    root = options.out / "processes"
    unpack(options.data_dir, root)
    rows, targets = [], []
    for count in COUNTS:
        seconds = _launch(count, root, options.out / f"processes-{count}", 3 * options.rounds)
        for name, values in seconds.items():
            per_step = f"{1000 * statistics.median(values) / NUM_STEPS:.2f}"
            rows.append([count, name, per_step, f"{ratio(values, seconds[OURS]):.2f}"])
        if count == 2:
            name = f"{OURS} / {HAND_WRITTEN} with the same settings, 2 processes, a step"
            targets.append(Target(name, ratio(seconds[OURS], seconds[HAND_WRITTEN]), 1.03))
    text = f"{TEXT}\n\n{table(['processes', '', 'median, ms a step', '× this project'], rows)}"
    return Section("Several processes", text, targets)


def _launch(count: int, data_dir: Path, out: Path, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each round by name, as `count` processes of torchrun measured them."""
    out.mkdir()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}", __file__]
    done = subprocess.run(
        [*command, str(data_dir), str(out), str(rounds)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"{done.stderr[-5000:]}\n{count} processes have ended before their time")
    seconds: dict[str, list[float]] = json.loads((out / "seconds.json").read_text())
    return seconds


def alternate(task: Task, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each turn of NUM_STEPS by name: `rounds` of them, after one of warming up."""
    shuffle = random.Random(0).shuffle  # the same order in every process
    with ExitStack() as stack:
        turns: dict[str, Callable[[], None]] = {
            HAND_WRITTEN: partial(_train_by_hand, *_with_ddp(task)),
            OURS: partial(_train_epoch, _running(stack, task, "plain")),
            OFF: partial(_train_epoch, _running(stack, task, "off", *FEATURES_OFF)),
            VIRTUAL: partial(_train_epoch, _running(stack, task, "virtual", "trainer.virtual_ranks=12")),
        }
        seconds: dict[str, list[float]] = {name: [] for name in turns}
        for _ in range(rounds + 1):
            order = list(turns)
            shuffle(order)
            for name in order:
                if world_size() > 1:
                    wait_for_all()
                started = time.perf_counter()
                turns[name]()
                seconds[name].append(time.perf_counter() - started)
    return {name: values[1:] for name, values in seconds.items()}


def _with_ddp(task: Task) -> tuple[nn.Module, torch.optim.Optimizer, Iterator[tuple[Tensor, Tensor]]]:
    model, _, batches, _ = with_levers(task)
    assert isinstance(batches, TensorBatches)
    if world_size() > 1:
        model = nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)
    return model, torch.optim.Adam(model.parameters(), lr=LR, fused=True), _slices(batches.images, batches.labels)


def _slices(images: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield this process's slice of batch after batch, without end."""
    generator = torch.Generator().manual_seed(0)  # the same order in every process
    while True:
        for batch in torch.randperm(len(labels), generator=generator).split(BATCH_SIZE)[:NUM_STEPS]:
            own = batch.tensor_split(world_size())[rank()]
            yield images[own], labels[own]


def _train_by_hand(
    model: nn.Module, optimizer: torch.optim.Optimizer, batches: Iterator[tuple[Tensor, Tensor]]
) -> None:
    model.train()
    for _ in range(NUM_STEPS):
        images, labels = next(batches)
        optimizer.zero_grad()
        F.nll_loss(model(images), labels).backward()
        optimizer.step()


def _running(stack: ExitStack, task: Task, name: str, *settings: str) -> Trainer:
    data = [f"data_loader.args.data_dir={task.data_dir}", "data_loader.args.source=mnist"]
    data += [f"data_loader.args.batch_size={BATCH_SIZE}", "data_loader.args.validation_split=0"]
    run = ["n_gpu=0", "lr_scheduler=null", f"trainer.save_dir={task.out / name}", f"trainer.len_epoch={NUM_STEPS}"]
    run += ["trainer.epochs=10000", "trainer.save_period=10000", "trainer.monitor=off", "trainer.early_stop=null"]
    args = [arg for item in [*data, *run, *settings] for arg in ("--set", item)]
    trainer = train.build_trainer(train.parse_args(["-c", str(CONFIG), *args]))
    stack.enter_context(trainer._running())
    return trainer


def _train_epoch(trainer: Trainer) -> None:
    trainer._finish_epoch(trainer._train_epoch(trainer.position.epoch))


if __name__ == "__main__":
    torch.set_num_threads(1)
    with launched():
        data, directory, number = sys.argv[1:]
        result = alternate(Task(Path(data), Path(directory), BATCH_SIZE), int(number))
        if is_main():
            (Path(directory) / "seconds.json").write_text(json.dumps(result))
