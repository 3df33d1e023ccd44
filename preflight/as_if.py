"""A rehearsal of N processes: the memory, traffic and time that each would take, before any of them is rented.

The first of N processes trains a few steps here, on its own share of each batch, in a fake process group. What
it holds and how long it computes is measured, what it sends is recorded; only the time on the link is computed.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from copy import deepcopy
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch

from base import BaseTrainer
from base.groups import optimizers_of
from distributed import world_size
from distributed.traffic import Collective, Link, Recorder, fake_processes
from parse_config import ConfigParser
from preflight.footprint import SavedForBackward, state_held
from preflight.rehearsal import run_few_steps
from utils.device import free_memory
from utils.errors import ConfigError
from utils.failures import is_out_of_memory

NUM_STEPS, MIN_S = 12, 1.0  # measured at a time, and for at least so long
TITLES = ("processes", "samples", "memory", "sent", "compute", "link", "a step", "overlapped", "speedup", "efficiency")


class Step(NamedTuple):
    """A step that was made: its collectives, and the seconds that those calls took."""

    collectives: list[Collective]
    calls_s: float


class Measured(NamedTuple):
    """A step of the process with the most samples, and what that holds, in bytes by name."""

    batch_size: int
    num_samples: int
    compute_s: float
    collectives: list[Collective]
    memory: dict[str, int]


def rehearse_as_if(config: ConfigParser, build_trainer: Callable[[ConfigParser], BaseTrainer]) -> list[str]:
    """Return lines about what a run would need and take with as many processes as `config.as_if` says.

    Raises ConfigError, also for what a run with so many processes would be refused for.
    """
    if world_size() > 1:
        raise ConfigError("--as-if: start it without torchrun; the processes are only imagined")
    assert config.as_if is not None
    counts, link = config.as_if
    measured = []
    for count in counts:
        with fake_processes(count):
            measured.append(_measured(build_trainer(deepcopy(config))))  # what "auto" resolves to may differ
        free_memory()
    try:
        alone_s = _measured(build_trainer(deepcopy(config))).compute_s
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        alone_s = None
    lines, batch_size = _premises(link, alone_s), measured[0].batch_size
    if len(counts) == 1:
        lines += _details(measured[0], counts[0])
    if (most := max(counts)) > batch_size:
        lines.append(f"warning: a batch has {batch_size} samples, so {most - batch_size} of {most} processes have none")
    rows = [TITLES, *(_row(of_count, count, link, alone_s) for of_count, count in zip(measured, counts))]
    widths = [max(map(len, column)) for column in zip(*rows)]
    return lines + ["  ".join(map(str.rjust, row, widths)) for row in rows]


def _measured(trainer: BaseTrainer) -> Measured:
    """Return what a step of this process is. The trainer must not be used afterwards."""
    with TemporaryDirectory() as folder:  # for loops that write files of their own into the run directory
        trainer.config.save_dir = Path(folder)
        step, memory = observe(trainer)
        # An imagined group copies what the others would have sent, which is the link's work.
        compute_s = max(0.0, _step_seconds(trainer) - step.calls_s)
    sampler = trainer.loop.loader.batch_sampler
    num_samples = sum(sampler.share.sizes(iter([sampler.batch_size]))) * trainer.options.grad_accum_steps
    return Measured(sampler.batch_size, num_samples, compute_s, step.collectives, memory)


def observe(trainer: BaseTrainer) -> tuple[Step, dict[str, int]]:
    """Train a few steps of this process's share; return the last one, and the bytes that are held, by name.

    All processes must call this. The trainer must not be used to train afterwards.
    """
    trainer.loop.attach()
    if not trainer.loop.is_followed:
        raise ConfigError("--as-if: needs a map-style dataset")
    trainer._preflight()
    if "lr_scheduler" in vars(trainer):  # a schedule may have fewer steps than this
        trainer.lr_scheduler = None  # type: ignore[attr-defined]
    recorder, saved, steps = Recorder(), SavedForBackward(), []

    def after_step(*_: Any) -> None:
        steps.append(Step(*recorder.pop()))

    hook = optimizers_of(trainer)[0].register_step_post_hook(after_step)
    run_few_steps(trainer, 2)  # warms up
    steps.clear()
    with ExitStack() as stack:
        if not trainer.options.cuda_graph:  # of one process; nothing can be seen in it
            stack.enter_context(recorder)
            stack.enter_context(saved.counted())
        run_few_steps(trainer, 4)
    hook.remove()
    collectives = steps[-1].collectives
    memory = state_held(trainer) | {"activations": saved.peak} | _collective_memory(trainer, collectives)
    return steps[-1]._replace(calls_s=min(step.calls_s for step in steps)), memory


def _step_seconds(trainer: BaseTrainer) -> float:
    """Return the median time of a step, without what is around an epoch. Raises ConfigError for an epoch of one."""
    times: list[float] = []
    ends: list[float] = []

    def after_step(*_: Any) -> None:
        if trainer.device.type == "cuda":  # else the host would run ahead
            torch.cuda.synchronize(trainer.device)
        ends.append(time.perf_counter())

    optimizers_of(trainer)[0].register_step_post_hook(after_step)
    started = time.perf_counter()
    while not times or time.perf_counter() - started < MIN_S:
        ends.clear()
        run_few_steps(trainer, NUM_STEPS)
        times += [end - begin for begin, end in pairwise(ends)]
        if not times:
            raise ConfigError("--as-if: an epoch must have two steps or more, to measure one")
    return median(times)


def _collective_memory(trainer: BaseTrainer, collectives: list[Collective]) -> dict[str, int]:
    """Return the bytes of what is sent or received at a time: buckets, a gathered block, or the vectors of slices."""
    chosen = trainer.options.strategy
    if trainer.options.virtual_ranks is None and chosen.type != "fsdp":
        buckets = sum(size for kind, size in collectives if kind == "all-reduce")
        return {"buckets": 0 if chosen.gradient_as_bucket_view else buckets}
    name = "gathered block" if chosen.type == "fsdp" else "vectors"
    largest = dict(sorted(collectives, key=itemgetter(1)))  # size by kind
    return {name: sum(largest.values())}


def _premises(link: Link, alone_s: float | None) -> list[str]:
    """Return the assumptions behind the figures."""
    alone = "does not fit into memory here" if alone_s is None else f"takes {_ms(alone_s)}"
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, threads: {torch.get_num_threads()}"
    return [
        f"measured here ({device}): a step of one process, with the whole batch, {alone}",
        f"assumed: a ring of links with {link.speed / 1e9:g} GB/s, {link.latency * 1e6:g} us a message "
        "(--link-speed, --link-latency), and processes on such devices",
        "not counted: validation, saves, and metrics, which processes merge every 32 steps",
    ]


def _details(measured: Measured, count: int) -> list[str]:
    """Return what one process holds and sends."""
    held = " + ".join(f"{name} {_size(size)}" for name, size in measured.memory.items() if size)
    sent = [f"{num} {kind} of {_size(size)}" for (kind, size), num in Counter(measured.collectives).items()]
    return [f"memory of each of {count} processes: {held}", f"exchanged in a step: {', '.join(sent) or 'nothing'}"]


def _row(measured: Measured, count: int, link: Link, alone_s: float | None) -> tuple[str, ...]:
    """Return the line of `count` processes, as TITLES."""
    link_s = link.seconds(measured.collectives, count)
    together = measured.compute_s + link_s
    speedup = alone_s / together if alone_s is not None else None
    return (
        f"{count:,}",
        f"{measured.num_samples:,}",
        _size(sum(measured.memory.values())),
        _size(sum(collective.sent(count) for collective in measured.collectives)),
        _ms(measured.compute_s),
        _ms(link_s),
        _ms(together),
        _ms(max(measured.compute_s, link_s)),
        "-" if speedup is None else f"{speedup:.2f}",
        "-" if speedup is None else f"{speedup / count:.1%}",
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:,.2f} ms"


def _size(number: float) -> str:
    """Return bytes in the largest unit that leaves a digit before the point."""
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while number >= 1024 and len(units) > 1:
        number, units = number / 1024, units[1:]
    return f"{number:.4g} {units[0]}"
