"""A hive that falls silent without closing its connection: a frozen process, a cut cable."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from rbee.contracts.control import HEARTBEAT_INTERVAL_S, SILENCE_LIMIT_S
from tests.support.hives import KEY as HIVE_KEY
from tests.support.hives import HiveProcess
from tests.support.machine import BIN, Machine
from tests.support.queens import QueenProcess, count, ended_well, machine_with_fake, named
from tests.support.waiting import eventually, slowness

pytestmark = pytest.mark.process


@pytest.fixture(name="machine")
def _machine(tmp_path: Path) -> Iterator[Machine]:
    with machine_with_fake(tmp_path, tokens_per_s=10) as machine:
        yield machine


@pytest.fixture(name="hive")
def _hive(machine: Machine, tmp_path: Path) -> Iterator[HiveProcess]:
    machine.environ()
    env = {"RBEE_CONFIG": str(machine.home / "config.toml")}
    hive = HiveProcess(tmp_path / "other", env=env, worker_binary=BIN / "llm-worker-rbee")
    yield hive
    psutil.Process(hive.process.pid).resume()
    hive.close()


def test_a_silent_hive_is_noticed_and_found_again_as_it_was(machine: Machine, hive: HiveProcess) -> None:
    """Silence is noticed within 10 s, a running answer outlasts it, and the hive returns with the worker it had."""
    machine.configure("queen", local_hive=False)
    queen = QueenProcess(machine)
    node: dict[str, Any] = {"node_name": "attic", "ssh_host": "127.0.0.1", "hive_port": hive.port}
    queen.post("/v2/registry/beehives/add", {**node, "hive_key": HIVE_KEY})
    running = queen.aside(node="attic", max_tokens=180)
    running.tokens(1)
    before = [(row["worker_id"], row["pid"]) for row in queen.workers()]
    frozen = psutil.Process(hive.process.pid)

    frozen.suspend()
    began = time.monotonic()
    eventually(lambda: not queen.workers(), within=SILENCE_LIMIT_S + 5, because="the silence is noticed")
    noticed = time.monotonic() - began
    refused = queen.refused("POST", "/v2/tasks", queen.request_body(node="attic"))
    frozen.resume()
    eventually(lambda: bool(queen.workers()), within=SILENCE_LIMIT_S, because="the hive is connected again")
    events = running.ended()

    assert SILENCE_LIMIT_S - HEARTBEAT_INTERVAL_S - 1 < noticed < (SILENCE_LIMIT_S + 2) * slowness()
    assert refused[1]["code"] == "CONNECTION_TIMEOUT"
    assert "no message" in refused[1]["message"]
    assert ended_well(events)
    assert count(events) == 180
    assert [(row["worker_id"], row["pid"]) for row in queen.workers()] == before


def test_a_stream_ends_with_the_machine_that_is_lost(machine: Machine, hive: HiveProcess) -> None:
    """Where hive and worker fall silent together, as with a cut cable, a stream ends as soon as the node is dropped."""
    machine.configure("queen", local_hive=False)
    queen = QueenProcess(machine)
    node: dict[str, Any] = {"node_name": "attic", "ssh_host": "127.0.0.1", "hive_port": hive.port}
    queen.post("/v2/registry/beehives/add", {**node, "hive_key": HIVE_KEY})
    running = queen.aside(node="attic", max_tokens=3000)
    running.tokens(1)
    worker = psutil.Process(queen.worker()["pid"])
    frozen = [psutil.Process(hive.process.pid), worker]

    for process in frozen:
        process.suspend()
    try:
        began = time.monotonic()
        error = running.saw("error")["error"]
        took = time.monotonic() - began
    finally:
        for process in frozen:
            process.resume()

    assert took < (SILENCE_LIMIT_S + 3) * slowness()
    assert error["code"] == "CONNECTION_TIMEOUT"
    assert "machine was lost after" in error["message"]
    assert error["details"]["node"] == "attic"


def test_a_hive_port_that_is_not_reached_is_one_error_with_its_address(machine: Machine) -> None:
    """A port that takes connections and never answers, as behind a firewall, is told within 15 s with host and port."""
    machine.configure("queen", local_hive=False)
    queen = QueenProcess(machine)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        queen.post("/v2/registry/beehives/add", {"node_name": "attic", "ssh_host": "127.0.0.1", "hive_port": port})
        began = time.monotonic()
        (error,) = named(queen.task(node="attic"), "error")
        took = time.monotonic() - began

    assert took < 15 * slowness()
    assert error["error"]["code"] == "CONNECTION_TIMEOUT"
    assert f"no connection to http://127.0.0.1:{port} within 5 s" in error["error"]["message"]
