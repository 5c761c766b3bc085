"""The life of a queen in the keeper's hands, with real daemons: nothing started is left, nothing found is harmed."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.gguf_files import write_gguf
from tests.support.machine import Machine
from tests.support.stand_in_queen import StandInQueen, done, event, refusal, tokens
from tests.support.waiting import eventually

pytestmark = pytest.mark.process


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path / "machine")
    machine.configure("worker", engine="fake")
    yield machine
    machine.close()


@pytest.fixture
def model(machine: Machine) -> str:
    return f"file://{write_gguf(machine.root / 'tiny.gguf')}"


def infer(model: str, *more: str) -> list[str]:
    return ["rbee-keeper", "infer", "--model", model, "--prompt", "hello", *more]


@pytest.mark.B51
def test_what_an_infer_started_is_gone_when_it_fails(machine: Machine) -> None:
    """An ephemeral queen ends with the command also where the command fails."""
    result = machine.run(*infer("file:///nowhere/missing.gguf"))

    assert result.code == 1
    assert "missing.gguf" in result.stderr
    assert machine.processes() == []


@pytest.mark.B51
@pytest.mark.parametrize(("presses", "code"), [([signal.SIGTERM], 143), ([signal.SIGINT, signal.SIGINT], 130)])
def test_what_an_infer_started_is_gone_when_it_is_ended(
    machine: Machine, model: str, presses: list[signal.Signals], code: int
) -> None:
    """SIGTERM takes everything down in order; a second Ctrl-C ends at once, and nothing outlives it by 2 s."""
    machine.fake(tokens_per_s=20)
    running = machine.start(*infer(model, "--max-tokens", "400"))
    eventually(lambda: len(running.stdout.read_text()) > 5, within=60, because="the first tokens have come")

    for press in presses:
        running.signal(press)

    assert running.wait(30).code == code
    eventually(lambda: not machine.processes(), within=2, because="every process has ended")


def test_a_port_that_a_stranger_has_is_named(machine: Machine) -> None:
    """Nothing is started where something else listens at queen_url; the message says what to do."""
    with socket.create_server(("127.0.0.1", machine.queen_port)) as stranger:
        stranger.settimeout(0)
        for command in (["daemon", "start"], ["daemon", "status"]):
            machine.env["RBEE_START_TIMEOUT_S"] = "5"
            result = machine.run("rbee-keeper", *command, within=30)

            assert result.code == 1
            assert str(machine.queen_port) in result.stderr
            assert "RBEE_QUEEN_URL" in result.stderr
    assert machine.processes() == []


@pytest.mark.parametrize("command", [["daemon", "start"], ["models", "list"]])
def test_a_queen_that_cannot_start_says_why(machine: Machine, command: list[str]) -> None:
    """What keeps a queen from starting is printed by the keeper, with the key, the file and the line."""
    machine.configure("queen", colour="blue")

    result = machine.run("rbee-keeper", *command)

    assert result.code == 1
    assert "unknown key 'colour'" in result.stderr
    assert f"{machine.home}/config.toml:" in result.stderr
    assert machine.processes() == []


@pytest.mark.B63
def test_start_and_stop_with_a_receipt(machine: Machine, model: str) -> None:
    """`daemon stop` accounts for the queen, its hive and its workers, and removes the PID file."""
    assert machine.run("rbee-keeper", "daemon", "start").code == 0
    pid = int((machine.home / "run" / "queen-rbee.pid").read_text())
    assert machine.process("queen-rbee").pid == pid
    assert machine.run(*infer(model)).code == 0
    shown = machine.run("rbee-keeper", "daemon", "status", "--json").json
    assert (shown["state"], shown["pid"], shown["workers"]) == ("running", pid, 1)

    receipt = machine.run("rbee-keeper", "daemon", "stop", "--json")

    assert receipt.code == 0, receipt
    assert (receipt.json["hives"], receipt.json["workers"], receipt.json["processes"]) == (1, 1, 3)
    assert receipt.json["left"] == []
    assert machine.processes() == []
    assert not (machine.home / "run" / "queen-rbee.pid").exists()


def test_stopping_what_does_not_run(machine: Machine) -> None:
    """`daemon stop` without a queen is done already; a stale PID file is said and removed."""
    run = machine.home / "run"
    run.mkdir()
    (run / "queen-rbee.pid").write_text(f"{os.getpid()}\n")

    result = machine.run("rbee-keeper", "daemon", "stop")

    assert (result.code, result.stdout) == (0, "stopped\n")
    assert "stale PID file" in result.stderr
    assert not (run / "queen-rbee.pid").exists()


def test_a_queen_that_hangs_is_ended_by_signals(machine: Machine) -> None:
    """A queen that runs but does not respond is reported by status and killed by stop, with its hive."""
    machine.env["RBEE_STOP_TIMEOUT_S"] = "1"
    assert machine.run("rbee-keeper", "daemon", "start").code == 0
    machine.process("queen-rbee").suspend()

    status = machine.run("rbee-keeper", "daemon", "status", within=30)
    stop = machine.run("rbee-keeper", "daemon", "stop", within=40)

    assert status.code == 1
    assert "CONNECTION_TIMEOUT" in status.stderr
    assert stop.code == 0, stop
    assert "killed" in stop.stderr
    eventually(lambda: not machine.processes(), within=5, because="the local hive ended with the queen")


def test_two_starts_at_once_are_one_queen(machine: Machine) -> None:
    """Two `daemon start` at once both succeed, with one queen."""
    running = [machine.start("rbee-keeper", "daemon", "start", "--json") for _ in range(2)]

    results = [each.wait(60) for each in running]

    assert [result.code for result in results] == [0, 0]
    assert sorted(result.json["started"] for result in results) == [False, True]
    assert len(machine.processes("queen-rbee")) == 1


def test_an_infer_waits_for_the_others_on_its_own_queen(machine: Machine, model: str) -> None:
    """A keeper that owns the queen lets another's answer finish before it stops it."""
    machine.fake(tokens_per_s=20)
    first = machine.start(*infer(model, "--max-tokens", "60"))
    eventually(lambda: first.stdout.read_text(), within=60, because="the first answer runs")
    second = machine.start(*infer(model, "--max-tokens", "80"))

    results = [first.wait(60), second.wait(60)]

    assert [result.code for result in results] == [0, 0], results[1]
    assert "80 tokens" in results[1].stderr
    eventually(lambda: not machine.processes(), within=5, because="nothing is left")


def test_a_request_that_meets_an_ending_queen_starts_over(machine: Machine, model: str) -> None:
    """DRAINING before the first token: the keeper waits until that queen is gone and starts one of its own."""
    with StandInQueen() as ending:
        machine.configure("", queen_url=ending.url)
        machine.configure("queen", port=int(ending.url.rsplit(":", 1)[1]))
        machine.env["RBEE_API_KEY"] = "a-key-of-tests"
        ending.answer("POST", "/v2/tasks", refusal("DRAINING", "The queen is stopping."), 503)
        running = machine.start(*infer(model))
        eventually(lambda: ending.requests("POST", "/v2/tasks"), within=15, because="the request was refused")

    result = running.wait(60)

    assert result.code == 0, result
    assert "starting over" in result.stderr
    assert machine.processes() == []


@pytest.mark.parametrize(
    ("code", "status"),
    [("CONNECTION_TIMEOUT", 502), ("INVALID_RESPONSE", 502), ("DRAINING", 503)],
)
def test_what_a_hive_does_not_answer_is_one_error(machine: Machine, model: str, code: str, status: int) -> None:
    """A queen that tells of a hive which hangs or stops does not stop itself: nothing is waited for or sent again."""
    with StandInQueen() as queen:
        machine.configure("", queen_url=queen.url)
        machine.env["RBEE_API_KEY"] = "a-key-of-tests"
        details = {"url": "http://10.1.2.3:9200"}
        queen.answer("GET", "/v2/status", {"draining": False})
        queen.answer("POST", "/v2/tasks", refusal(code, "The hive on attic does not answer.", details=details), status)

        result = machine.run(*infer(model), within=20)

        assert len(queen.requests("POST", "/v2/tasks")) == 1
    assert result.code == 1
    assert result.stderr.count("The hive on attic does not answer") == 1
    assert "queen is stopping" not in result.stderr


def test_a_hive_that_hangs_is_one_error(machine: Machine, model: str) -> None:
    """A frozen hive ends `infer` with one true error, as soon as the queen has waited for it once.

    Lists say that it does not answer, and which workers it had.
    """
    machine.configure("queen", hive_start_timeout_s=12)
    assert machine.run("rbee-keeper", "daemon", "start").code == 0
    assert machine.run(*infer(model)).code == 0
    hive = machine.process("rbee-hive")
    list_workers = ["rbee-keeper", "worker", "list", "--json"]
    eventually(
        lambda: [row["state"] for row in machine.run(*list_workers).json["workers"]] == ["idle"],
        within=10,
        because="the hive tells that its worker is idle",
    )

    hive.suspend()
    try:
        eventually(lambda: not machine.run(*list_workers).json["workers"], within=20, because="the silence is noticed")
        result = machine.run(*infer(model), within=30)
        listed = machine.run("rbee-keeper", "worker", "list")
        health = machine.run("rbee-keeper", "worker", "health")
        models = machine.run("rbee-keeper", "models", "list", "--node", "localhost")
    finally:
        hive.resume()

    assert result.code == 1
    assert "CONNECTION_TIMEOUT" in result.stderr
    assert "did not open its channel within 12 s" in result.stderr
    assert "starting over" not in result.stderr
    address = f"http://127.0.0.1:{machine.hive_port}"
    assert "Warning: the hive on localhost does not answer: no " in listed.stderr
    assert address in listed.stderr
    assert "; last heard of " in listed.stderr
    assert "unknown, was idle" in listed.stdout
    assert health.code == 1
    assert "its hive does not answer: no " in health.stdout
    assert "did not open its channel within 12 s" in models.stderr


def test_a_request_is_not_sent_again_after_a_token(machine: Machine, model: str) -> None:
    """Once a token was printed a break is an error, whoever's queen it is."""
    with StandInQueen() as queen:
        machine.configure("", queen_url=queen.url)
        machine.env["RBEE_API_KEY"] = "a-key-of-tests"
        draining = event(refusal("DRAINING", "The queen is stopping."), "error")
        queen.stream("POST", "/v2/tasks", event({"task_id": "t1"}, "task"), *tokens("Honey"), draining)
        queen.stream("POST", "/v2/tasks", *tokens("again"), *done(1))

        result = machine.run(*infer(model, "--json"))

        assert len(queen.requests("POST", "/v2/tasks")) == 1
    assert result.code == 1
    assert json.loads(result.stdout.splitlines()[-1])["error"]["code"] == "DRAINING"


def test_a_queen_of_somebody_else_is_not_taken_for_ones_own(machine: Machine, tmp_path: Path) -> None:
    """`daemon start` where another user's queen listens fails, names the address, and leaves that queen alone."""
    other = Machine(tmp_path / "other")
    try:
        other.configure("", queen_url=f"http://127.0.0.1:{machine.queen_port}")
        assert machine.run("rbee-keeper", "daemon", "start").code == 0

        result = other.run("rbee-keeper", "daemon", "start")

        assert result.code == 1
        assert "PORT_IN_USE" in result.stderr
        assert f"http://127.0.0.1:{machine.queen_port} is not yours" in result.stderr
        assert "RBEE_QUEEN_URL" in result.stderr
        assert machine.run("rbee-keeper", "daemon", "status", "--json").json["state"] == "running"
    finally:
        other.close()
