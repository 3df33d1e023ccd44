"""Being one of the processes that torchrun started. Without torchrun there is one, and everything here says so."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from datetime import timedelta

import torch
import torch.distributed as dist

from distributed.failures import failures_shared, introduce, one_speaks
from utils.failures import exit_on_user_error

JOIN_TIMEOUT = timedelta(minutes=10)  # until all processes have imported torch and met


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return how many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process is the one that speaks and writes files."""
    return rank() == 0


@contextmanager
def launched() -> Iterator[None]:
    """Run a script as the only process, or as one of those that torchrun started.

    Turns UserErrors into a message and an exit code. Of several processes the first one speaks, or the one that fails;
    the others exit with the same code.
    """
    if int(os.environ.get("WORLD_SIZE") or 1) == 1:
        with exit_on_user_error():
            yield
        return
    with exit_on_user_error(), _joined() as store, one_speaks(), _silent_unless_main(), failures_shared():
        yield
        _leave_together(store)


def wait_for_all() -> None:
    """Return when every process is here; it goes by the CPU, unlike torch's barrier, which keeps a GPU busy."""
    dist.all_reduce(torch.zeros(1))


@contextmanager
def main_first() -> Iterator[None]:
    """Let the first process of each machine go first: what it downloads or converts is there for the others."""
    is_first = int(os.environ.get("LOCAL_RANK") or 0) == 0
    if world_size() > 1 and not is_first:
        wait_for_all()
    yield
    if world_size() > 1 and is_first:
        wait_for_all()


@contextmanager
def _joined() -> Iterator[dist.Store]:
    """Connect with the others, and yield the store that all can write to.

    It goes by NCCL where each process of this machine has a GPU of its own, else by gloo; what is decided on the host
    goes by gloo in either case.
    """
    num_local, num_gpus = int(os.environ.get("LOCAL_WORLD_SIZE") or 1), torch.cuda.device_count()
    if num_gpus > 0:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK") or 0) % num_gpus)
    backend = "cpu:gloo,cuda:nccl" if num_local <= num_gpus else "gloo"
    store, number, size = next(dist.rendezvous("env://", timeout=JOIN_TIMEOUT))
    store = dist.PrefixStore(_agreed_name(store, number, size), store)
    dist.init_process_group(backend, store=store, rank=number, world_size=size, timeout=JOIN_TIMEOUT)
    introduce()
    try:
        yield store
    finally:
        dist.destroy_process_group()


def _leave_together(store: dist.Store) -> None:
    """Wait until all are done: who leaves closes the connections of those that are not.

    By the store: a thread of gloo that still holds a tensor of its last operation aborts a process that exits.
    """
    end = time.monotonic() + JOIN_TIMEOUT.total_seconds()
    store.add("done", 1)
    with suppress(dist.DistError, RuntimeError):  # the process that holds the store has seen them all, and left
        while store.add("done", 0) < dist.get_world_size() and time.monotonic() < end:
            time.sleep(0.01)


def _agreed_name(store: dist.Store, number: int, size: int) -> str:
    """Return a name that all processes of this start know, and none of an earlier one.

    torchrun starts processes again with the same store, where the keys of those that died still are: addresses, for
    one. It has no number for a start that is the same on all machines. So each process says hello by a name of its own,
    and the first one answers with its name, until all have it.
    """
    own = uuid.uuid4().hex
    store.set(f"hello/{number}", own)
    if number > 0:
        name: str = store.get(f"welcome/{own}").decode()
        store.set(f"ready/{name}/{number}", "")
        return name
    end = time.monotonic() + JOIN_TIMEOUT.total_seconds()
    waiting = set(range(1, size))
    while waiting:
        if time.monotonic() > end:
            raise TimeoutError(f"processes {sorted(waiting)} did not start")
        for other in [number for number in waiting if store.check([f"hello/{number}"])]:
            store.set(f"welcome/{store.get(f'hello/{other}').decode()}", own)
        waiting = {other for other in waiting if not store.check([f"ready/{own}/{other}"])}
        time.sleep(0.005)
    return own


@contextmanager
def _silent_unless_main() -> Iterator[None]:
    """Discard what all but the first process print; their errors are printed outside of this."""
    with ExitStack() as stack:
        if not is_main():
            nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            stack.enter_context(redirect_stdout(nowhere))
            stack.enter_context(redirect_stderr(nowhere))
        yield
