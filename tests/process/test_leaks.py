"""Starting and stopping again and again leaves nothing behind, and an end keeps its promises first."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from rbee.hive.workers.orphans import KEPT_LOGS
from tests.support.hives import KEY as HIVE_KEY
from tests.support.hives import HiveProcess
from tests.support.machine import BIN, Machine
from tests.support.queens import QueenProcess, count, ended_well, machine_with_fake, named
from tests.support.waiting import eventually

pytestmark = pytest.mark.process
# More than an event loop has threads, and more than there are logs kept: one of each for each start would show.
STARTS = 40
AT_ONCE = 4
# An event loop starts threads for blocking work until it has as many as it may.
POOL = min(32, (os.cpu_count() or 1) + 4)


@pytest.fixture(name="machine")
def _machine(tmp_path: Path) -> Iterator[Machine]:
    with machine_with_fake(tmp_path) as machine:
        yield machine


class Held:
    """What a process holds: descriptors by kind, children, listening ports."""

    def __init__(self, process: psutil.Process) -> None:
        self.descriptors = process.num_fds()
        self.threads = process.num_threads()
        self.children = len(process.children())
        self.ports = sorted(c.laddr.port for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_many_starts_and_stops_leak_nothing(machine: Machine, tmp_path: Path) -> None:
    """Queen and hive hold as many descriptors, threads, children and ports as before, and no file is left over."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    machine.env["TMPDIR"] = str(scratch)
    queen = QueenProcess(machine)

    def start_and_stop(_number: int) -> None:
        body = {"node": "localhost", "model": queen.model}
        with queen.streaming("/v2/workers/spawn", body) as events:
            (spawned,) = [data for name, data in events if name == "message" and "worker" in data]
        receipt = queen.post("/v2/workers/shutdown", {"worker_id": spawned["worker"]["worker_id"]})
        assert receipt["gone"]
        assert not receipt["killed"]
        assert receipt["memory_returned"] is True

    with ThreadPoolExecutor(AT_ONCE) as hands:
        list(hands.map(start_and_stop, range(2 * AT_ONCE)))
        hive = queen.hive()
        before = Held(hive), Held(psutil.Process(queen.pid))
        began = time.monotonic()
        list(hands.map(start_and_stop, range(STARTS)))
        lasted = time.monotonic() - began

    def as_before() -> bool:
        for process, first in zip((hive, psutil.Process(queen.pid)), before, strict=True):
            now = Held(process)
            assert now.children == first.children
            assert now.ports == first.ports
            assert now.descriptors <= first.descriptors + 2, f"{now.descriptors}, {first.descriptors} before"
            assert now.threads <= first.threads + POOL
        return True

    eventually(as_before, within=10, because="what the last one used is given back")
    assert not machine.processes("llm-worker-rbee")
    assert queen.workers() == []
    assert list(scratch.iterdir()) == []
    logs = list((machine.home / "logs").glob("worker-*.log"))
    assert len(logs) <= KEPT_LOGS + AT_ONCE, f"{len(logs)} logs of workers are kept"
    print(f"{STARTS} starts and stops in {lasted:.1f} s")  # noqa: T201


def test_a_hive_that_drains_delivers_what_it_promised(machine: Machine, tmp_path: Path) -> None:
    """A hive that is told to end lets its workers finish their answers; new requests go elsewhere or are refused."""
    machine.configure("queen", local_hive=False)
    machine.fake(tokens_per_s=40)
    machine.environ()
    env = {"RBEE_CONFIG": str(machine.home / "config.toml")}
    hive = HiveProcess(tmp_path / "other", env=env, worker_binary=BIN / "llm-worker-rbee")
    try:
        queen = QueenProcess(machine)
        node: dict[str, Any] = {"node_name": "attic", "ssh_host": "127.0.0.1", "hive_port": hive.port}
        queen.post("/v2/registry/beehives/add", {**node, "hive_key": HIVE_KEY})
        running = queen.aside(node="attic", max_tokens=100)
        running.tokens(5)

        receipt = hive.post("/v1/admin/shutdown")
        events = running.ended()

        assert count(events) == 100
        assert ended_well(events)
        assert not named(events, "error")
        assert [each["killed"] for each in receipt["workers"]] == [False]
        assert receipt["gone"]
        status, error = queen.refused("POST", "/v2/tasks", queen.request_body(node="attic"))
        assert (status, error["code"]) in ((503, "DRAINING"), (502, "CONNECTION_TIMEOUT"))
        assert hive.process.wait(10) == 0
    finally:
        hive.close()
