"""Two machines on one: network namespaces, each with an address of its own, joined by a cable. Linux and root alone."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Node:
    """One namespace: its name, network interface and address, and what was started in it."""

    name: str
    interface: str
    address: str
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, command: Sequence[str], log: Path, **environment: str) -> subprocess.Popen[bytes]:
        """Start `command` here, in a process group of its own; append what it prints to `log`."""
        with log.open("ab") as output:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.name, *command],
                env={**os.environ, "GLOO_SOCKET_IFNAME": self.interface, **environment},  # both have one host name
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def kill(self) -> None:
        """Send SIGKILL to every process here, orphans too."""
        while pids := _ip("netns", "pids", self.name, check=False).split():
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            for process in self.processes:
                process.poll()
            time.sleep(0.02)
        for process in self.processes:
            process.wait(timeout=10)


@contextmanager
def two_nodes() -> Iterator[tuple[Node, Node]]:
    """Make two nodes that reach each other and nothing else; kill what runs there, and remove them, at the end."""
    _sweep()
    tag, subnet = f"nodes-{os.getpid()}-{uuid.uuid4().hex[:4]}", os.getpid() % 250 + 1
    one, other = (Node(f"{tag}-{end}", f"veth-{end}", f"10.{subnet}.0.{end}") for end in (1, 2))
    try:
        for node in (one, other):
            _ip("netns", "add", node.name)
        ends = [[node.interface, "netns", node.name] for node in (one, other)]
        _ip("link", "add", *ends[0], "type", "veth", "peer", "name", *ends[1])
        for node in (one, other):
            _ip("-n", node.name, "addr", "add", f"{node.address}/24", "dev", node.interface)
            _ip("-n", node.name, "link", "set", "lo", "up")
            _ip("-n", node.name, "link", "set", node.interface, "up")
        yield one, other
    finally:
        for node in (one, other):
            node.kill()
            _ip("netns", "del", node.name, check=False)


def why_not() -> str | None:
    """Return why `two_nodes` does not work here; None where it does."""
    if not shutil.which("ip"):
        return "two nodes need Linux and the command `ip` of iproute2"
    try:
        with two_nodes() as (one, _):
            _ip("netns", "exec", one.name, "true")
    except (subprocess.SubprocessError, OSError) as error:
        message = getattr(error, "stderr", None) or str(error)
        return f"cannot make network namespaces: {message.strip().splitlines()[-1]}"
    return None


def _sweep() -> None:
    """Remove the nodes of tests that were killed."""
    for line in _ip("netns", "list", check=False).splitlines():
        name = line.split()[0]
        if name.startswith("nodes-") and not Path("/proc", name.split("-")[1]).exists():
            Node(name, "", "").kill()
            _ip("netns", "del", name, check=False)


def _ip(*args: str, check: bool = True) -> str:
    return subprocess.run(["ip", *args], check=check, capture_output=True, text=True, timeout=20).stdout
