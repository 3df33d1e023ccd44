"""What an exception or a signal means for whoever started the script: one message, and an exit code."""

from __future__ import annotations

import errno
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from utils.errors import OutOfMemoryError, RunDirError, UserError, WorkerDiedError, printable
from utils.signals import EXIT_CODES, LoaderIterator, StopSignals

# Libraries report missing memory by plain RuntimeErrors and OSErrors too: torch, C++, oneDNN, cuBLAS, the system.
MEMORY_MESSAGES = (
    *("DefaultCPUAllocator", "bad_alloc", "could not create a primitive", "could not create a memory"),
    *("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "Cannot allocate memory", "can't start new thread"),
    "MemoryError",  # of a worker, where torch cannot make that error again
)


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether `error`, or the one that it was raised from, says that there is too little memory."""
    if error is None:
        return False
    is_known = isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, OSError) and error.errno == errno.ENOMEM
    )
    says_so = isinstance(error, RuntimeError | OSError) and any(text in str(error) for text in MEMORY_MESSAGES)
    is_ours = isinstance(error, UserError) and error.exit_code == OutOfMemoryError.exit_code
    return is_known or says_so or is_ours or is_out_of_memory(error.__cause__)


def worker_death(error: Exception) -> WorkerDiedError | None:
    """Return what to say where `error` came from a DataLoader one of whose workers has died.

    It need not say so: what a dying worker has half sent cannot be read either.
    """
    owners = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__)]
    workers = [worker for owner in owners if isinstance(owner, LoaderIterator) for worker in owner._workers]
    if workers:
        time.sleep(0.5)  # one that is dying still looks alive; and who signals all processes may do it one by one
    says_so = str(error).startswith("DataLoader worker (")
    dead = [worker for worker in workers if not worker.is_alive()]
    died = next((worker for worker in dead if worker.exitcode), dead[0] if dead and says_so else None)
    if died is None:
        return None
    who, code = f"a data-loading worker (pid {died.pid})", died.exitcode or 0
    signal_name = signal.Signals(-code).name if code < 0 else ""
    if signal_name == "SIGKILL":
        return WorkerDiedError(f"{who} was killed, most likely as memory ran out; try fewer num_workers", 7)
    if signal_name == "SIGBUS":
        return WorkerDiedError(f"{who} ran out of shared memory (/dev/shm); enlarge it, or try fewer num_workers", 7)
    how = f"was ended by {signal_name}" if signal_name else f"exited with code {code}"
    return WorkerDiedError(f"{who} {how}; num_workers 0 may show why", 1)


def last_line(error: BaseException) -> str:
    """Return the last line of an error's text, which names it where a worker raised it; or else its type."""
    return (str(error).splitlines() or [type(error).__name__])[-1]


def as_user_error(error: Exception) -> UserError | None:
    """Return what a user can put right about `error`: missing memory and a dead worker too; None where it is ours."""
    if isinstance(error, OutOfMemoryError | WorkerDiedError):
        return error
    if death := worker_death(error):
        return death
    if is_out_of_memory(error):
        return OutOfMemoryError(f"out of memory: {last_line(error)}\ntry a smaller batch_size, model or num_workers")
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return RunDirError(f"{error.strerror}: raise the limit of the process, such as with ulimit -n 1024")
    return error if isinstance(error, UserError) else None


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Turn a UserError into its message on stderr and its exit code; leave our own errors their traceback.

    A signal ends the process at once with its exit code, except while StopSignals says otherwise.
    """
    with StopSignals(at_once=True) as signals:
        try:
            yield
        except KeyboardInterrupt:  # raised, not sent
            sys.exit(130)
        except Exception as error:
            if signals.received is None:  # or else it comes of the SystemExit, which libraries wrap in errors of theirs
                known = as_user_error(error)
                if known is None:
                    raise
                print(printable(known, kept="\n\t", length=100_000), file=sys.stderr)
                sys.exit(known.exit_code)
    if signals.received is not None:
        sys.exit(EXIT_CODES[signals.received])
