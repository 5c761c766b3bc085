"""Models that are declared to be served: what is declared, what serves, and who asks meanwhile."""

from __future__ import annotations

import re
import shlex
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import psutil
import pytest
from pytest_bdd import given, parsers, then, when

from tests.bdd.steps.clients import Answer, chat, queen_of
from tests.bdd.steps.workers import listed
from tests.support.commands import Result, Running
from tests.support.machine import Machine
from tests.support.waiting import eventually, slowness

_GB = 1_000_000_000


@dataclass
class Clients:
    """Clients that ask for a model again and again; what went wrong for them."""

    machine: Machine
    over: threading.Event = field(default_factory=threading.Event)
    answers: list[Answer] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)

    def ask(self, model: str) -> None:
        """Begin."""

        def run() -> None:
            while not self.over.is_set():
                self.answers.append(chat(queen_of(self.machine), model, max_tokens=10))

        self.threads = [threading.Thread(target=run, daemon=True) for _ in range(3)]
        for thread in self.threads:
            thread.start()

    def end(self) -> None:
        """Let the requests that run finish."""
        self.over.set()
        for thread in self.threads:
            thread.join(60 * slowness())


@pytest.fixture
def clients(machine: Machine) -> Iterator[Clients]:
    asking = Clients(machine)
    yield asking
    asking.end()


@given("the machine has memory for 1 worker")
def memory_for_one(machine: Machine) -> None:
    """Find out what a worker takes, in a life of the daemons before."""
    assert machine.run("rbee-keeper", "daemon", "start").code == 0
    started = machine.run("rbee-keeper", "worker", "start", "--node", "localhost", "--model", "bee")
    assert started.code == 0, started
    (worker,) = listed(machine)
    assert machine.run("rbee-keeper", "daemon", "stop").code == 0
    machine.configure("hive", cpu_memory_gb=1.5 * worker["need_bytes"] / _GB)


@given(parsers.re(r'"(?P<name>[^"]*)" is declared with "(?P<options>[^"]*)"'))
def is_declared(machine: Machine, name: str, options: str) -> None:
    done = machine.run("rbee-keeper", "models", "serve", name, "--model", "bee", *shlex.split(options))
    assert done.code == 0, done
    wanted = re.search(r"--replicas (\d+)", options)
    if wanted:
        serves_within(machine, name, int(wanted[1]), 30)
        eventually(lambda: state_of(machine, name) == "serving", within=10, because=f"{name} is told to be served")


@when("the worker dies by a signal")
def worker_killed(machine: Machine) -> None:
    worker = listed(machine)[0]
    psutil.Process(worker["pid"]).kill()
    eventually(
        lambda: worker["worker_id"] not in [row["worker_id"] for row in listed(machine)],
        within=15,
        because="the end of the worker is noticed",
    )


@when("the local hive dies by a signal")
def local_hive_killed(machine: Machine) -> None:
    before = {row["worker_id"] for row in listed(machine)}
    machine.process("rbee-hive").kill()
    eventually(
        lambda: not before & {row["worker_id"] for row in listed(machine)},
        within=15,
        because="the end of the hive is noticed",
    )


@when("the queen is killed and started again")
def queen_killed(machine: Machine) -> None:
    queen = machine.process("queen-rbee")
    queen.send_signal(signal.SIGKILL)
    queen.wait(10)
    assert machine.run("rbee-keeper", "daemon", "start").code == 0


@when(parsers.parse('clients ask "{name}" all the time'))
def ask_all_the_time(clients: Clients, name: str) -> None:
    clients.ask(name)
    eventually(lambda: clients.answers, within=20, because="a first request was answered")


@when(parsers.parse('{count:d} clients ask "{name}" at once'), target_fixture="answers")
def ask_at_once(machine: Machine, count: int, name: str) -> list[Answer]:
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda _: chat(queen_of(machine), name, max_tokens=160), range(count)))


@then(parsers.re(r'"(?P<name>[^"]*)" is served by (?P<count>\d+) workers? within (?P<seconds>\d+) seconds'))
def is_served(machine: Machine, name: str, count: str, seconds: str) -> None:
    assert serves_within(machine, name, int(count), int(seconds)) == int(count)


@then(parsers.parse('"{name}" is not declared'))
def is_not_declared(machine: Machine, name: str) -> None:
    rows = machine.run("rbee-keeper", "models", "served", "--json").json["served"]
    assert name not in [row["declared"]["name"] for row in rows]


@then(parsers.parse("its worker has {slots:d} slots of {tokens:d} tokens"))
def has_settings(machine: Machine, slots: int, tokens: int) -> None:
    (worker,) = listed(machine)
    assert (worker["slots_total"], worker["context_length"]) == (slots, tokens)


@then(parsers.parse("its worker has {slots:d} slots within {seconds:d} seconds"))
def has_slots(machine: Machine, slots: int, seconds: int) -> None:
    eventually(
        lambda: [worker["slots_total"] for worker in listed(machine)] == [slots],
        within=seconds,
        because=f"its only worker has {slots} slots",
    )


@then("no request was lost")
def no_request_lost(clients: Clients) -> None:
    clients.end()
    assert clients.answers
    assert [answer.error for answer in clients.answers if answer.error is not None] == []


@then("each of its workers has answered one")
def each_answered(machine: Machine, answers: list[Answer]) -> None:
    assert [answer.error for answer in answers] == [None] * len(answers)

    def used() -> list[dict[str, Any]]:
        return [worker for worker in listed(machine) if worker["last_active_unix"] > worker["started_unix"] + 0.5]

    eventually(lambda: len(used()) == len(answers), within=5, because="each worker was used")


@then("the first operator got a whole answer")
def whole_answer(running: Running) -> None:
    done = running.wait(60)
    assert done.code == 0, done


@then(parsers.parse('the operator reads "{pattern}"'))
def operator_reads(result: Result, pattern: str) -> None:
    assert re.search(pattern, result.stdout), result


def state_of(machine: Machine, name: str) -> str:
    """Return how the queen says that a declared model stands."""
    rows = machine.run("rbee-keeper", "models", "served", "--json").json["served"]
    return next(str(row["state"]) for row in rows if row["declared"]["name"] == name)


def serves_within(machine: Machine, name: str, count: int, seconds: int) -> int:
    """Wait until so many workers serve a declared model; return how many do."""

    def serving() -> list[dict[str, Any]]:
        return [row for row in listed(machine) if row["served"] == name and row["state"] in ("idle", "busy")]

    eventually(lambda: len(serving()) == count, within=seconds, because=f"{count} workers serve {name}")
    return len(serving())
