"""One failure of several processes: the process that failed says why, and the others end with its exit code.

A process that fails closes its connections, and the others then fail in the middle of a collective operation. That is
not what anybody wants to read. So a process leaves its message in the store, where the others look first.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch.distributed as dist

from utils.errors import UserError
from utils.failures import as_user_error

GRACE_S = 5.0  # until a process that fails has said so, and until all others have noticed
TIMEOUT_MESSAGES = ("Timed out", "timeout caused pair closure")
LOST_MESSAGES = (
    *("Connection closed by peer", "Connection reset by peer", "Broken pipe", "gloo", "NCCL"),
    *TIMEOUT_MESSAGES,
)


class PeerFailedError(UserError):
    """Another process of the run failed, was killed, or hangs."""

    def __init__(self, message: str, exit_code: int, speaker: int) -> None:
        """`speaker` is the number of the process that prints the message."""
        super().__init__(message)
        self.exit_code = exit_code
        self.speaker = speaker


def introduce() -> None:
    """Leave in the store which process this is, for the others to name it by."""
    _store().set(f"process/{dist.get_rank()}", f"pid {os.getpid()} on {socket.gethostname()}")


@contextmanager
def failures_shared() -> Iterator[None]:
    """Tell the other processes of an error here; raise PeerFailedError where the error comes from one of theirs."""
    try:
        yield
    except PeerFailedError:
        raise
    except Exception as error:
        if not dist.is_initialized():
            raise
        if _is_of_a_peer(error):
            raise _failure_of_a_peer(error) from None
        _report(error)
        raise


@contextmanager
def one_speaks() -> Iterator[None]:
    """Exit without a word where another process says what went wrong."""
    try:
        yield
    except Exception as error:
        failure = error if isinstance(error, PeerFailedError) else _report(error)
        _leave()
        if failure.speaker != dist.get_rank():
            sys.exit(failure.exit_code)
        raise


def _store() -> Any:
    return dist.distributed_c10d._get_default_store()  # torch has no public name for it


def _report(error: Exception) -> PeerFailedError:
    """Leave `error` in the store unless another one is there; return the one that is."""
    known = as_user_error(error)
    text = str(known) if known else f"{type(error).__name__}: {error}"
    own: dict[str, Any] = {"message": text, "exit_code": known.exit_code if known else 1, "speaker": dist.get_rank()}
    with suppress(dist.DistError, RuntimeError):  # the process that holds the store may be the one that is gone
        own = json.loads(_store().compare_set("failure", "", json.dumps(own)))
    return PeerFailedError(**own)


def _leave() -> None:
    """Let the first process stay until the others have read what failed: without torchrun, it holds the store."""
    with suppress(dist.DistError, RuntimeError):
        _store().set(f"left/{dist.get_rank()}", "")
        end = time.monotonic() + GRACE_S
        others = [f"left/{number}" for number in range(1, dist.get_world_size())]
        is_holder = dist.get_rank() == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        while is_holder and time.monotonic() < end and not _store().check(others):
            time.sleep(0.02)


def _is_of_a_peer(error: Exception) -> bool:
    is_collective = isinstance(error, RuntimeError) and any(text in str(error) for text in LOST_MESSAGES)
    return isinstance(error, dist.DistError) or is_collective


def _failure_of_a_peer(error: Exception) -> PeerFailedError:
    """Return what another process said; where none said anything, which processes give no sign of life."""
    try:
        store = _store()
        store.set(f"noticed/{dist.get_rank()}", "")
        end = time.monotonic() + GRACE_S
        while time.monotonic() < end:
            if store.check(["failure"]):
                return PeerFailedError(**json.loads(store.get("failure")))
            time.sleep(0.05)
        lost = [number for number in range(dist.get_world_size()) if not store.check([f"noticed/{number}"])]
        known = {number: store.check([f"process/{number}"]) for number in lost}  # or it died before it said so
        names = {number: f" ({store.get(f'process/{number}').decode()})" if known[number] else "" for number in lost}
        who = ", ".join(f"process {number}{name}" for number, name in names.items())
        is_late = any(text in str(error) for text in TIMEOUT_MESSAGES)
        how = "hangs: no answer within trainer.process_timeout_s" if is_late else "was killed"
        return _report(UserError(f"{who or 'a process'} {how}"))
    except (dist.DistError, RuntimeError):
        return PeerFailedError("the first process is gone, or its machine", 1, dist.get_rank())
