"""Keys of clients, and what clients get who have one."""

from __future__ import annotations

import httpx
import pytest
from pytest_bdd import given, parsers, then, when

from tests.bdd.steps.clients import queen_of
from tests.support.machine import Machine


@pytest.fixture(name="keys")
def keys_given_out() -> dict[str, str]:
    """Hold the keys that were given out, by client; the name has no underscore, so that it is imported with all."""
    return {}


@given(parsers.re(r'a key for the client "(?P<name>\w+)"'))
def has_key(machine: Machine, keys: dict[str, str], name: str) -> None:
    add_key(machine, keys, name, "")


@given(parsers.re(r'a key for the client "(?P<name>\w+)" with "(?P<options>[^"]+)"'))
def has_key_with(machine: Machine, keys: dict[str, str], name: str, options: str) -> None:
    add_key(machine, keys, name, options)


def add_key(machine: Machine, keys: dict[str, str], name: str, options: str) -> None:
    made = machine.run("rbee-keeper", "keys", "add", name, *options.split())
    assert made.code == 0, made
    keys[name] = made.stdout.strip()


def chat_with_key(machine: Machine, key: str, model: str, **headers: str) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "Bees?"}], "max_tokens": 5}
    sent = {"Authorization": f"Bearer {key}"} | {f"X-Rbee-{name}": value for name, value in headers.items()}
    url = f"{queen_of(machine).url}/v1/chat/completions"
    return httpx.post(url, json=body, headers=sent, timeout=60, trust_env=False)


@when(parsers.re(r'the client "(?P<name>\w+)" chats with "(?P<model>[^"]+)"'), target_fixture="response")
def chats(machine: Machine, keys: dict[str, str], name: str, model: str) -> httpx.Response:
    return chat_with_key(machine, keys[name], model)


@when(
    parsers.re(r'the client "(?P<name>\w+)" chats with "(?P<model>\w+)" (on|at) the (?P<what>\w+) "(?P<value>\w+)"'),
    target_fixture="response",
)
def chats_somewhere(
    machine: Machine, keys: dict[str, str], name: str, model: str, what: str, value: str
) -> httpx.Response:
    return chat_with_key(machine, keys[name], model, **{what.capitalize(): value})


@then("the client is answered")
def answered(response: httpx.Response) -> None:
    assert response.status_code == 200, response.text
    assert response.json()["usage"]["completion_tokens"] == 5


@then(parsers.parse('the client is refused with status {status:d} and code "{code}", and a message with "{word}"'))
def refused_for(response: httpx.Response, status: int, code: str, word: str) -> None:
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (status, code)
    assert word in error["message"]


@then(parsers.parse('the client is refused with status {status:d} and code "{code}", and told when to come back'))
def refused_until(response: httpx.Response, status: int, code: str) -> None:
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert 0 < int(response.headers["retry-after"]) <= 86_400


@then(parsers.parse('the client "{name}" lists only the model "{model}"'))
def lists_only(machine: Machine, keys: dict[str, str], name: str, model: str) -> None:
    headers = {"Authorization": f"Bearer {keys[name]}"}
    listed = httpx.get(f"{queen_of(machine).url}/v1/models", headers=headers, timeout=60, trust_env=False)
    assert [card["id"] for card in listed.json()["data"]] == [model]
