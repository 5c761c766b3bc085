"""The queen's life: start, its local hive, its end, and what is left afterwards."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from rbee.lifeline import ORDERED, Lifeline
from tests.support.machine import BIN, Machine, free_ports
from tests.support.queens import QueenProcess, count, ended_well, machine_with_fake, named, told
from tests.support.waiting import eventually, slowness

pytestmark = pytest.mark.process


@pytest.fixture(name="machine")
def _machine(tmp_path: Path) -> Iterator[Machine]:
    with machine_with_fake(tmp_path) as machine:
        yield machine


def test_the_end_is_a_cascade_with_a_receipt(machine: Machine) -> None:
    """The shutdown route answers when workers and hive are gone, and the queen ends with 0."""
    queen = QueenProcess(machine)
    queen.task()
    worker = queen.worker()

    receipt = queen.post("/v1/admin/shutdown")

    (hive,) = receipt["hives"]
    assert hive["node"] == "localhost"
    assert hive["gone"] is True
    assert [(stopped["worker_id"], stopped["gone"]) for stopped in hive["workers"]] == [(worker["worker_id"], True)]
    assert {worker["pid"], queen.pid} < set(receipt["pids"])
    assert not psutil.pid_exists(worker["pid"])
    assert machine.processes("rbee-hive") == []
    assert queen.running.wait(10).code == 0


def test_only_a_machine_where_something_may_run_is_left(machine: Machine) -> None:
    """A node that was never reached is named where it is silent; where it refuses the connection nothing is left."""
    queen = QueenProcess(machine)
    (closed,) = free_ports(1)
    with socket.socket() as silent:
        # It accepts a connection and never answers, as a hive that hangs does.
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        for name, port in (("clean", closed), ("stuck", silent.getsockname()[1])):
            node = {"node_name": name, "ssh_host": "127.0.0.1", "hive_port": port, "hive_key": "k" * 43}
            queen.post("/v2/registry/beehives/add", node)

        receipt = queen.post("/v1/admin/shutdown")

    assert [(hive["node"], hive["gone"]) for hive in receipt["hives"] if hive["node"] != "localhost"] == [
        ("stuck", False)
    ]
    assert queen.running.wait(10).code == 0


def test_sigterm_ends_everything_with_0(machine: Machine) -> None:
    """A signal is the same cascade."""
    queen = QueenProcess(machine)
    queen.task()

    queen.running.signal(signal.SIGTERM)

    assert queen.running.wait(20).code == 0
    assert machine.processes() == []


def test_a_running_task_finishes_and_new_ones_are_refused(machine: Machine) -> None:
    """While the queen drains, tokens already promised are delivered, and DRAINING answers everything new."""
    machine.fake(tokens_per_s=20)
    queen = QueenProcess(machine)
    aside = queen.aside(max_tokens=60)
    aside.tokens(2)
    answers: list[Any] = []
    ending = threading.Thread(target=lambda: answers.append(queen.post("/v1/admin/shutdown", {"when_idle": True})))
    ending.start()

    def refused() -> bool:
        status, error = queen.refused("POST", "/v2/tasks", queen.request_body())
        return (status, error["code"]) == (503, "DRAINING")

    eventually(refused, within=5, because="new tasks are refused")
    events = aside.ended()
    ending.join(20)

    assert ended_well(events)
    assert count(events) == 60
    assert answers
    assert queen.running.wait(10).code == 0


def test_a_task_that_outlasts_the_drain_is_cut_off_in_words(machine: Machine) -> None:
    """After the limit the stream ends with DRAINING, and the queen still ends with 0."""
    machine.configure("queen", drain_timeout_s=0.5)
    machine.fake(tokens_per_s=20)
    queen = QueenProcess(machine)
    aside = queen.aside(max_tokens=4000)
    aside.tokens(2)

    queen.running.signal(signal.SIGTERM)

    assert named(aside.ended(), "error")[0]["error"]["code"] == "DRAINING"
    assert queen.running.wait(20).code == 0
    assert machine.processes() == []


def test_nothing_outlives_a_queen_that_is_killed(machine: Machine) -> None:
    """Hive and worker are gone within 2 s of a SIGKILL to the queen."""
    queen = QueenProcess(machine)
    queen.task()
    assert len(machine.processes()) == 3

    queen.running.signal(signal.SIGKILL)

    eventually(lambda: machine.processes() == [], within=2, because="hive and worker are gone")


def test_an_ephemeral_queen_ends_with_her_owner(machine: Machine) -> None:
    """A queen on a lifeline announces its port, says that it is ephemeral, and ends when the line is cut."""
    line, pid, words = _owned(machine)
    assert words["pid"] == pid
    eventually(lambda: len(machine.processes()) == 2, within=10, because="queen and hive run")

    line.close()

    os.waitpid(pid, 0)
    eventually(lambda: machine.processes() == [], within=2, because="nothing outlives the owner")


def test_a_hive_that_was_begun_too_early_is_called_off(machine: Machine) -> None:
    """An ephemeral queen starts a hive before it knows its settings; where they want none there is none."""
    line, pid, words = _owned(machine, "--local-hive", "false")
    assert words["pid"] == pid

    assert machine.processes("rbee-hive") == []
    line.close()
    os.waitpid(pid, 0)


def test_a_hive_that_was_begun_ends_with_a_queen_who_cannot_start(machine: Machine) -> None:
    """Wrong settings of the queen leave nothing behind that waits for orders."""
    line, pid, words = _owned(machine, "--max-tasks", "none")
    assert words["error"]["code"] == "CONFIG_INVALID"

    os.waitpid(pid, 0)
    eventually(lambda: machine.processes() == [], within=2, because="nothing waits for orders")
    line.close()


def test_a_prestarted_hive_keeps_the_secrets_of_its_orders_to_itself(machine: Machine) -> None:
    """Its key is in no command line and in no environment that another process may read."""
    line, pid, _ = _owned(machine)
    eventually(lambda: "serving" in machine.log("rbee-hive.log"), within=20, because="the hive serves")
    hive = machine.process("rbee-hive")

    assert hive.cmdline()[-1] == ORDERED
    assert "RBEE_HIVE_API_KEY" not in hive.environ()
    line.close()
    os.waitpid(pid, 0)
    eventually(lambda: machine.processes() == [], within=2, because="nothing outlives the owner")


def test_a_hive_without_an_owner_gets_no_orders(machine: Machine) -> None:
    """Who types the argument that only queens use is told so at once."""
    result = machine.run("rbee-hive", ORDERED)

    assert result.code == 1
    assert "for a program that starts this one" in result.stderr


def _owned(machine: Machine, *arguments: str) -> tuple[Lifeline, int, dict[str, Any]]:
    """Start a queen as a keeper does; return its lifeline, its process id and its first message."""
    line = Lifeline()
    pid = os.posix_spawn(
        BIN / "queen-rbee",
        ["queen-rbee", "--port", "0", *arguments],
        {**machine.environ(), **line.env()},
        file_actions=[(os.POSIX_SPAWN_DUP2, line.child_fd, line.child_fd)],
    )
    line.spawned()
    words = line.read(20 * slowness())
    assert words is not None
    return line, pid, words


def test_a_local_hive_that_dies_is_started_again_when_it_is_needed(machine: Machine) -> None:
    """The queen notices the death at once, and the next task brings a new hive up."""
    queen = QueenProcess(machine)
    queen.task()
    first = queen.hive()

    first.kill()

    eventually(lambda: not queen.get("/v2/hives/list")["hives"][0]["connected"], within=5, because="it is noticed")
    assert queen.workers() == []
    events = queen.task()
    assert ended_well(events)
    assert "hive localhost: starting" in told(events)
    assert queen.hive().pid != first.pid


def test_a_local_hive_that_cannot_start_says_why(machine: Machine) -> None:
    """A hive that ends at once is an error with its own reason, on the task that needed it."""
    machine.env["RBEE_HIVE_SLOTS"] = "none"
    queen = QueenProcess(machine)

    events = queen.task()

    error = named(events, "error")[0]["error"]
    assert error["code"] == "CONFIG_INVALID"
    assert "slots" in error["message"]


def test_a_taken_hive_port_is_left_to_its_owner(machine: Machine) -> None:
    """The local hive takes the next free port, and the task's story says so."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", machine.hive_port))
        taken.listen()
        queen = QueenProcess(machine)
        eventually(lambda: queen.get("/v2/status")["hives_connected"] == 1, within=15, because="the hive is there")

    (hive,) = queen.get("/v2/hives/list")["hives"]
    assert hive["url"] != f"http://127.0.0.1:{machine.hive_port}"
    eventually(lambda: "port taken" in queen.running.stderr.read_text(), within=5, because="it is said")


def test_two_queens_do_not_share_a_home(machine: Machine) -> None:
    """The second one is refused with the first one's process id."""
    queen = QueenProcess(machine)

    second = machine.run("queen-rbee", "--port", "0")

    assert second.code == 1
    assert f"Another queen-rbee (process {queen.pid})" in second.stderr
    assert "Traceback" not in second.stderr


def test_a_taken_port_is_named(machine: Machine) -> None:
    """A queen whose port is in use says which one, and leaves no hive behind."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", machine.queen_port))
        taken.listen()

        refused = machine.run("queen-rbee")

    assert refused.code == 1
    assert str(machine.queen_port) in refused.stderr
    eventually(lambda: machine.processes() == [], within=2, because="the hive that was launched early is gone")


def test_a_broken_registry_is_named_at_the_start(machine: Machine) -> None:
    """A beehives.db that is no database ends the start with its path and what to do."""
    (machine.home / "beehives.db").write_bytes(b"not a database at all, whatever its name says" * 50)

    refused = machine.run("queen-rbee")

    assert refused.code == 1
    assert "beehives.db" in refused.stderr
    assert "Move it away" in refused.stderr
    eventually(lambda: machine.processes() == [], within=2, because="the hive that was launched early is gone")


def test_a_wrong_setting_ends_the_start_with_78(machine: Machine) -> None:
    """An unknown key is refused with the file and the line; a value out of bounds with its reason."""
    machine.env["RBEE_QUEEN_URL"] = f"http://127.0.0.1:{machine.queen_port}"  # the keeper's setting
    machine.configure("queen", prot=8080)
    unknown = machine.run("queen-rbee")
    del machine.tables["queen"]["prot"]
    out_of_bounds = machine.run("queen-rbee", "--max-tokens-typo", "1")
    too_big = machine.run("queen-rbee", "--port", "70000")

    assert unknown.code == 78
    assert "'prot'" in unknown.stderr
    assert "config.toml:" in unknown.stderr
    assert out_of_bounds.code == 2
    assert too_big.code == 78
    assert "port" in too_big.stderr
