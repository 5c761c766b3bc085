"""Clients and strangers that mean harm."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from pytest_bdd import parsers, then, when

from tests.hostile import attacks
from tests.hostile.attacks import Target
from tests.support.machine import Machine
from tests.support.waiting import slowness

REQUESTS: dict[str, Callable[[Target, random.Random], str]] = {
    "a body with a million wrong values": attacks.many_errors,
    "a body with 350000 unknown keys": attacks.many_keys,
    "a body that is nested deeply": attacks.deep_body,
    "a reference of its own": attacks.reference,
    "a prompt longer than any context": attacks.long_prompt,
}


@pytest.fixture(name="held")
def connections_held() -> Iterator[ExitStack]:
    """Hold connections until the scenario ends."""
    with ExitStack() as stack:
        yield stack


def target_of(machine: Machine, key: str) -> Target:
    return Target("127.0.0.1", machine.queen_port, key, "bee")


@when(parsers.re(r'the client "(?P<name>\w+)" sends (?P<request>.+)'), target_fixture="outcome")
def sends(machine: Machine, keys: dict[str, str], name: str, request: str) -> tuple[str, float]:
    began = time.monotonic()
    got = REQUESTS[request](target_of(machine, keys[name]), random.Random(1))
    return got, time.monotonic() - began


@then(parsers.parse('the hostile client gets "{answer}" within {seconds:d} seconds'))
def gets(outcome: tuple[str, float], answer: str, seconds: int) -> None:
    got, took = outcome
    assert got == answer
    assert took < seconds * slowness()


@when(parsers.parse('the client "{name}" holds {count:d} connections open with half a request each'))
def holds(machine: Machine, keys: dict[str, str], held: ExitStack, name: str, count: int) -> None:
    target = target_of(machine, keys[name])
    for _ in range(count):
        held.enter_context(target.connect()).sendall(attacks.HALF_HEAD)


@when(parsers.parse("a stranger asks {count:d} times for a path of {letters:d} letters"), target_fixture="log_before")
def asks_for_long_paths(machine: Machine, count: int, letters: int) -> int:
    before = len(machine.log("queen-rbee.log")) + len(machine.log("audit.log"))
    target = target_of(machine, "")
    for _ in range(count):
        with target.connect() as connection:
            connection.sendall(b"GET /" + b"A" * letters + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert connection.recv(12) == b"HTTP/1.1 401"
    return before


@then(parsers.parse("the log of the queen has grown by less than {size:d} bytes"))
def has_grown_little(machine: Machine, log_before: int, size: int) -> None:
    assert len(machine.log("queen-rbee.log")) + len(machine.log("audit.log")) - log_before < size
