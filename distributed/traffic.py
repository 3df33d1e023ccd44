"""What processes send each other in a step, recorded from a real one, and how long a link takes for it on paper."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode

from utils.errors import ConfigError
from utils.nested import tensors_of

# torch's operations: what they are called, and which argument is the whole of what is exchanged.
KINDS = {
    "allreduce_": ("all-reduce", 0),
    "allreduce_coalesced_": ("all-reduce", 0),
    "broadcast_": ("broadcast", 0),
    "_allgather_base_": ("all-gather", 0),
    "allgather_": ("all-gather", 0),
    "_reduce_scatter_base_": ("reduce-scatter", 1),
    "alltoall_base_": ("all-to-all", 1),
}
UNITS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "m": 1e-3, "u": 1e-6, "µ": 1e-6, "n": 1e-9}


class Collective(NamedTuple):
    """A collective operation: its kind, as in `KINDS`, and the bytes of what is reduced, or of all parts together."""

    kind: str
    size: int

    def sent(self, num_processes: int) -> float:
        """Return the bytes that one process sends: in a ring, or to broadcast as the root of a binomial tree."""
        if self.kind == "broadcast":
            return self.size * math.ceil(math.log2(num_processes))
        return self.num_messages(num_processes) / num_processes * self.size

    def num_messages(self, num_processes: int) -> int:
        """Return how many messages wait for each other: 2 (n - 1) in a ring that reduces and gathers."""
        if self.kind == "broadcast":
            return math.ceil(math.log2(num_processes))
        return (2 if self.kind == "all-reduce" else 1) * (num_processes - 1)


class Link(NamedTuple):
    """What connects each process with the next one: bytes a second, and seconds until a message has arrived."""

    speed: float
    latency: float

    @classmethod
    def parse(cls, speed: str, latency: str) -> Link:
        """Return the link of texts such as "25GB/s" or "200Gbit/s" and "20us". Raises ConfigError."""
        match = re.fullmatch(r"(\d+\.?\d*) ?([kMGT]?)(B|bit)/s", speed)
        if match is None or not float(match[1]):
            raise ConfigError(f"--link-speed: {speed!r} is no speed; give one such as 25GB/s or 200Gbit/s")
        bytes_per_s = float(match[1]) * UNITS[match[2]] / (8 if match[3] == "bit" else 1)
        if (match := re.fullmatch(r"(\d+\.?\d*) ?([muµn]?)s", latency)) is None:
            raise ConfigError(f"--link-latency: {latency!r} is no time; give one such as 20us")
        return cls(bytes_per_s, float(match[1]) * UNITS[match[2]])

    def seconds(self, collectives: list[Collective], num_processes: int) -> float:
        """Return how long `collectives` take, one after the other (alpha-beta model: latency, and bytes by speed)."""
        num_messages = sum(one.num_messages(num_processes) for one in collectives)
        return sum(one.sent(num_processes) for one in collectives) / self.speed + num_messages * self.latency


class Recorder(TorchDispatchMode):
    """While it is entered, lists the collectives of this process, and adds up the seconds that the calls take."""

    def __init__(self) -> None:
        super().__init__()
        self._collectives: list[Collective] = []
        self._seconds = 0.0

    def pop(self) -> tuple[list[Collective], float]:
        """Return the collectives since the last time, and the seconds that the calls took."""
        popped = self._collectives, self._seconds
        self._collectives, self._seconds = [], 0.0
        return popped

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call `func`, and note it where it is a collective."""
        started = time.perf_counter()
        result = func(*args, **(kwargs or {}))
        if func.namespace != "c10d":
            return result
        self._seconds += time.perf_counter() - started
        name = func.overloadpacket.__name__
        kind, whole = KINDS.get(name, (name.strip("_"), 0))
        self._collectives.append(Collective(kind, sum(tensor.nbytes for tensor in tensors_of(args[whole]))))
        return result


@contextmanager
def fake_processes(num_processes: int) -> Iterator[None]:
    """Be rank 0 of a fake process group of `num_processes`, whose others send what this one does, in no time.

    Raises ConfigError where torch is too old.
    """
    from torch.testing._internal.distributed.fake_pg import FakeProcessGroup, FakeStore

    options = getattr(FakeProcessGroup, "Options", object)()
    if not hasattr(options, "simulate_uniform_ranks"):
        raise ConfigError("--as-if: needs a newer torch; 2.15 has what it takes")
    options.simulate_uniform_ranks = True  # torch's DDP reads results
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=num_processes, pg_options=options)
    try:
        yield
    finally:
        dist.destroy_process_group()
