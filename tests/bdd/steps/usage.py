"""What clients have used, as the queen and its commands tell it, and what its audit says."""

from __future__ import annotations

import json
from typing import Any

import httpx
from pytest_bdd import parsers, then, when

from tests.bdd.steps.clients import queen_of
from tests.support.machine import Machine
from tests.support.waiting import eventually


def usage_of(machine: Machine, name: str) -> list[dict[str, Any]]:
    """Return the rows of a client as the operator's command has them."""
    ran = machine.run("rbee-keeper", "--json", "usage", "--client", name)
    assert ran.code == 0, ran
    rows: list[dict[str, Any]] = json.loads(ran.stdout)["rows"]
    return rows


def ask_as(machine: Machine, key: str, **query: str) -> httpx.Response:
    url = f"{queen_of(machine).url}/v2/usage"
    return httpx.get(url, params=query, headers={"Authorization": f"Bearer {key}"}, timeout=60, trust_env=False)


@then(
    parsers.re(
        r'the usage of the client "(?P<name>\w+)" is (?P<count>\d+) requests? and (?P<tokens>\d+) answer tokens of '
        r'"(?P<model>\w+)"'
    ),
    converters={"count": int, "tokens": int},
)
def usage_is(machine: Machine, name: str, count: int, tokens: int, model: str) -> None:
    def told() -> list[tuple[str, str, int, int]]:
        rows = usage_of(machine, name)
        return [(row["client"], row["model"], row["requests"], row["answer_tokens"]) for row in rows]

    eventually(lambda: told() == [(name, model, count, tokens)], within=10, because="what was answered is counted")


@then(parsers.parse('the usage of the client "{name}" has seconds of a device'))
def usage_has_seconds(machine: Machine, name: str) -> None:
    eventually(lambda: usage_of(machine, name), within=10, because="what was answered is counted")
    (row,) = usage_of(machine, name)
    assert 0 < row["device_seconds"] < 60
    assert row["joules"] is None, "the CPU does not tell what it takes"


@then(parsers.parse('the client "{name}" sees only its own usage'))
def sees_its_own(machine: Machine, keys: dict[str, str], name: str) -> None:
    response = ask_as(machine, keys[name])
    assert response.status_code == 200, response.text
    assert {row["client"] for row in response.json()["rows"]} == {name}


@when(parsers.parse('the client "{name}" asks for the usage of "{other}"'), target_fixture="response")
def asks_for_another(machine: Machine, keys: dict[str, str], name: str, other: str) -> httpx.Response:
    return ask_as(machine, keys[name], client=other)


@when("the queen is started anew")
def started_anew(machine: Machine) -> None:
    for command in ("stop", "start"):
        ran = machine.run("rbee-keeper", "daemon", command)
        assert ran.code == 0, ran


@then(parsers.parse('the audit names "{path}" by "{who}" with the status {status:d}'))
def audited(machine: Machine, path: str, who: str, status: int) -> None:
    def written() -> bool:
        lines = [json.loads(line) for line in machine.log("audit.log").splitlines()]
        return (f"POST {path}", who, status) in [(line["action"], line["who"], line["status"]) for line in lines]

    eventually(written, within=5, because="it is written down a moment after its answer")
