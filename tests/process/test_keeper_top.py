"""`rbee-keeper top`: once for a pipe, and on a terminal until Ctrl-C."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.machine import Machine
from tests.support.queens import QueenProcess, machine_with_fake
from tests.support.terminal import Terminal
from tests.support.waiting import eventually

pytestmark = pytest.mark.process


@pytest.fixture(name="machine")
def _machine(tmp_path: Path) -> Iterator[Machine]:
    with machine_with_fake(tmp_path, tokens_per_s=50) as machine:
        yield machine


def test_in_a_pipe_it_prints_once(machine: Machine) -> None:
    """Machines, models and requests as they are, as text or as the rows themselves."""
    queen = QueenProcess(machine)
    queen.task(max_tokens=3)
    eventually(queen.all_idle, within=5, because="the hive tells that its worker is idle")
    once = machine.run("rbee-keeper", "top")
    assert once.code == 0, once.stderr
    assert "1 of 1 machines  1 workers  0 running  0 waiting" in once.stdout
    assert "localhost  cpu:0" in once.stdout
    assert "model.gguf  localhost cpu:0  idle" in once.stdout
    assert "done" in once.stdout
    told = machine.run("rbee-keeper", "top", "--once", "--json")
    lines = [json.loads(line) for line in told.stdout.splitlines()]
    assert [line["event"] for line in lines] == ["snapshot", "complete"]
    assert {change["kind"] for change in lines[0]["changes"]} == {"queen", "node", "catalog", "worker", "task"}


def test_on_a_terminal_it_follows_until_it_is_interrupted(machine: Machine) -> None:
    """A request is seen while it runs; a queen that is gone is waited for; Ctrl-C gives the screen back."""
    queen = QueenProcess(machine)
    with Terminal(machine, "rbee-keeper", "top") as screen:
        screen.shows("0 running")
        running = queen.aside(max_tokens=2000)
        screen.shows("1 running")
        queen.running.process.kill()
        queen.running.process.wait(10)
        running.ended()
        screen.shows("Trying again.")
        queen = QueenProcess(machine)
        before = len(screen.text)
        eventually(lambda: "1 of 1" in screen.text[before:], within=15, because="the new queen is followed")
        screen.interrupt()
        assert screen.ended() == 130
        assert "\x1b[?25h\x1b[?1049l" in screen.text[-100:]
        assert "Traceback" not in screen.text


def test_a_terminal_without_colours_is_followed_too(machine: Machine) -> None:
    """NO_COLOR asks for no colours, not for another program."""
    QueenProcess(machine)
    with Terminal(machine, "rbee-keeper", "top", NO_COLOR="1") as screen:
        screen.shows("1 of 1 machines", after=screen.shows("\x1b[?1049h"))
        screen.interrupt()
        assert screen.ended() == 130
        assert "\x1b[3" not in screen.text


def test_what_prevents_it_is_told_at_once(machine: Machine) -> None:
    """Without a queen, or with a key that may only infer, there is an error and no empty screen."""
    absent = machine.run("rbee-keeper", "top")
    assert absent.code == 1
    assert "rbee-keeper daemon start" in absent.stderr
    queen = QueenProcess(machine)
    with queen.client("guest") as client:
        machine.env["RBEE_API_KEY"] = client.headers["Authorization"].removeprefix("Bearer ")
    refused = machine.run("rbee-keeper", "top")
    assert refused.code == 1
    assert "needs the right 'operate'" in refused.stderr


def test_the_list_of_workers_is_watched_on_a_terminal(machine: Machine) -> None:
    """It changes in place while workers come and go; a pipe is told what to use instead."""
    queen = QueenProcess(machine)
    with Terminal(machine, "rbee-keeper", "worker", "list", "--watch") as screen:
        screen.shows("last used")
        queen.task(max_tokens=2)
        screen.shows("4 of 4")
        screen.interrupt()
        assert screen.ended() == 130
        assert "Traceback" not in screen.text
    refused = machine.run("rbee-keeper", "worker", "list", "--watch")
    assert refused.code == 2
    assert "--watch needs a terminal; for a program: rbee-keeper top --json." in refused.stderr
