"""What happens to machines that have hives: cables, plugs, and a queen that is no longer heard."""

from __future__ import annotations

import shlex

import pytest
from pytest_bdd import given, parsers, then, when

from rbee.client.queen import QueenClient
from tests.bdd.steps.fleet import Operator
from tests.support.machine import Running
from tests.support.waiting import eventually

_WORKERS = "pgrep -f /bin/llm-worker-rbee"


def queen_of(operator: Operator) -> QueenClient:
    """Give the operator's queen."""
    key = (operator.machine.home / "secrets" / "api-key").read_text().strip()
    return QueenClient(f"http://127.0.0.1:{operator.machine.queen_port}", key)


def heard(operator: Operator, name: str) -> bool:
    """Tell whether the queen's channel to a machine's hive is up."""
    return any(hive["connected"] for hive in queen_of(operator).hives() if hive["node"] == name)


@given(parsers.parse("the hive of {name} waits {seconds:d} seconds for a queen"))
def short_fence(operator: Operator, name: str, seconds: int, request: pytest.FixtureRequest) -> None:
    def wait(length: int) -> None:
        operator.shell(name, f"sed -i 's/^fence_after_s = .*/fence_after_s = {length}/' /etc/rbee/hive.toml")
        operator.restart(name)

    request.addfinalizer(lambda: wait(60))
    wait(seconds)


@when(parsers.parse("the cable of {name} is cut"))
def cut(operator: Operator, name: str, request: pytest.FixtureRequest) -> None:
    request.addfinalizer(operator.host(name).mend_cable)
    operator.host(name).cut_cable()


@when(parsers.parse("the cable of {name} is mended"))
def mended(operator: Operator, name: str) -> None:
    operator.host(name).mend_cable()


@when(parsers.parse("the power of {name} is cut"))
def power_cut(operator: Operator, name: str, request: pytest.FixtureRequest) -> None:
    request.addfinalizer(operator.host(name).boot)
    operator.host(name).power_cut()


@when(parsers.parse("the power of {name} is back"))
def power_back(operator: Operator, name: str) -> None:
    operator.host(name).boot()


@when(parsers.parse("the operator asks {name} for a long answer"), target_fixture="running")
def long_answer(operator: Operator, name: str) -> Running:
    command = f"rbee-keeper infer --node {name} --model demo --prompt 'Tell a long story.' --max-tokens 2000"
    return operator.machine.start(*shlex.split(command))


@then(parsers.parse("the worker of {name} is noted"), target_fixture="noted")
def note_worker(operator: Operator, name: str) -> tuple[str, str]:
    (row,) = queen_of(operator).workers(name)
    return str(row["worker_id"]), operator.host(name).inside(*_WORKERS.split()).stdout


@then(parsers.parse("{name} has the worker that was noted, and no other"))
def same_worker(operator: Operator, name: str, noted: tuple[str, str]) -> None:
    assert note_worker(operator, name) == noted


@then(parsers.parse("no worker runs on {name} within {seconds:d} seconds"))
def fenced(operator: Operator, name: str, seconds: int) -> None:
    eventually(
        lambda: not operator.host(name).inside(*_WORKERS.split(), check=False).stdout,
        within=seconds,
        because="the hive has stopped its workers",
    )


@then(parsers.re(r"the queen (?P<does>hears|does not hear) (?P<name>h\d) within (?P<seconds>\d+) seconds"))
def channel(operator: Operator, does: str, name: str, seconds: str) -> None:
    eventually(
        lambda: heard(operator, name) == (does == "hears"), within=int(seconds), because=f"the queen {does} {name}"
    )


@then("the operator stops the queen")
def stops_queen(operator: Operator) -> None:
    result = operator.type("rbee-keeper daemon stop")
    assert result.code == 0, result
