"""Two machines train one run: they meet, and a worker or a whole machine that is killed costs nothing but time."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest

from faults import assert_same_run, the_run, wait_until, write_config
from helpers import ROOT
from torchrun import alone, long_config, num_records, torchrun, workers_of
from two_nodes import Node, two_nodes, why_not

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / "tests" / "examples").is_dir(), reason="trains the examples' data"),
]
QUICK = "last_call_timeout=3,keep_alive_interval=1,keep_alive_max_attempt=3"  # once a machine is gone
FRESH_STORE = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}  # else a torchrun that comes later waits without end


@pytest.fixture
def nodes() -> Iterator[tuple[Node, Node]]:
    if reason := why_not():
        pytest.skip(reason)
    with two_nodes() as pair:
        yield pair


def c10d(node: Node, host: Node, num_nodes: str = "2", conf: str = "read_timeout=60") -> list[str]:
    """Return torchrun's options on `node`, where `host` holds the rendezvous."""
    conf = f"is_host={int(node is host)},{conf}"  # both have one host name, by which torchrun cannot tell them apart
    meeting = ["--rdzv-backend", "c10d", "--rdzv-id", "tests", "--rdzv-endpoint", f"{host.address}:29400"]
    return ["--nnodes", num_nodes, *meeting, "--rdzv-conf", conf, "--local-addr", node.address, "--max-restarts", "3"]


def assert_trains_like_one_process(config: dict[str, Any], agents: list[Popen[bytes]], tmp_path: Path) -> None:
    """Wait for the agents; assert that they trained to the bit what a process without torchrun does."""
    assert [agent.wait(120) for agent in agents] == [0] * len(agents)
    other = long_config(tmp_path / "alone", config["trainer"]["epochs"], virtual_ranks=4)
    assert_same_run(alone(other), the_run(config))


def test_two_nodes_with_fixed_addresses(nodes: tuple[Node, Node], tmp_path: Path) -> None:
    config = long_config(tmp_path / "saved", 4, virtual_ranks=4)
    options = ["--nnodes", "2", "--master-addr", nodes[0].address, "--master-port", "29500"]
    agents = [
        node.start(torchrun(*options, "--node-rank", str(number), config=write_config(config)), tmp_path / f"{number}")
        for number, node in enumerate(nodes)
    ]
    assert_trains_like_one_process(config, agents, tmp_path)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_worker_killed_on_one_of_two_nodes(nodes: tuple[Node, Node], tmp_path: Path, victim: int) -> None:
    config = long_config(tmp_path / "saved", 60, virtual_ranks=4)
    command = write_config(config)
    agents = [
        node.start(torchrun(*c10d(node, nodes[0]), config=command), tmp_path / f"{number}")
        for number, node in enumerate(nodes)
    ]
    wait_until(lambda: num_records(config) > 50)
    (worker,) = workers_of(agents[victim].pid)
    os.kill(worker, signal.SIGKILL)
    begin = time.monotonic()
    num_before = num_records(config)
    wait_until(lambda: num_records(config) > num_before + 10)
    print(f"trains again {time.monotonic() - begin:.1f} s after a SIGKILL")
    assert_trains_like_one_process(config, agents, tmp_path)


def test_a_node_killed_and_started_again(nodes: tuple[Node, Node], tmp_path: Path) -> None:
    config = long_config(tmp_path / "saved", 160, virtual_ranks=4)
    commands = [torchrun(*c10d(node, nodes[0], "1:2", QUICK), config=write_config(config)) for node in nodes]
    logs = [tmp_path / "0", tmp_path / "1"]
    agents = [node.start(command, log, **FRESH_STORE) for node, command, log in zip(nodes, commands, logs)]
    wait_until(lambda: num_records(config) > 50 and workers_of(agents[1].pid))
    nodes[1].kill()
    begin, num_before = time.monotonic(), num_records(config)
    wait_until(lambda: num_records(config) > num_before + 50)
    print(f"trains alone {time.monotonic() - begin:.1f} s after the other node was killed")
    begin, num_before = time.monotonic(), num_records(config)
    agents[1] = nodes[1].start(commands[1], logs[1], **FRESH_STORE)
    wait_until(lambda: workers_of(agents[1].pid))
    num_before = num_records(config)
    wait_until(lambda: num_records(config) > num_before + 50)
    print(f"trains by two again {time.monotonic() - begin:.1f} s after the node was started again")
    assert_trains_like_one_process(config, agents, tmp_path)
