"""Steps of clients that were made for Ollama or for llama-server."""

from __future__ import annotations

import json
from typing import Any

import httpx
from pytest_bdd import parsers, then, when

from tests.bdd.steps.clients import queen_of
from tests.support.machine import Machine
from tests.support.waiting import eventually

HELLO = [{"role": "user", "content": "Bees?"}]


def client_of(machine: Machine) -> httpx.Client:
    queen = queen_of(machine)
    headers = {"Authorization": f"Bearer {queen.key}"}
    return httpx.Client(base_url=queen.url, headers=headers, timeout=60, trust_env=False)


def workers_of(http: httpx.Client) -> Any:
    return http.get("/v2/workers/list").json()["workers"]


def card(http: httpx.Client, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in http.get("/models").json()["data"] if one["id"] == name)
    return found


@then(
    parsers.parse('the queen\'s list says that "{name}" is loaded, takes {context:d} tokens and can do "{capability}"')
)
def list_says(machine: Machine, name: str, context: int, capability: str) -> None:
    with client_of(machine) as http:
        eventually(lambda: capability in card(http, name)["capabilities"], within=10, because="its template is opened")
        listed = card(http, name)
    assert listed["status"] == {"value": "loaded"}
    assert listed["context_length"] == listed["meta"]["n_ctx"] == context


@when(
    parsers.parse('a client of Ollama\'s streams a chat with "{name}" of {count:d} tokens and a context of {size:d}'),
    target_fixture="answered",
)
def streams_ollama(machine: Machine, name: str, count: int, size: int) -> httpx.Response:
    options = {"num_predict": count, "num_ctx": size}
    with client_of(machine) as http:
        return http.post("/api/chat", json={"model": name, "messages": HELLO, "options": options})


@then(parsers.parse('it gets {count:d} lines and one that says "{reason}"; its header "{header}" names "{ignored}"'))
def gets_lines(answered: httpx.Response, count: int, reason: str, header: str, ignored: str) -> None:
    *pieces, last = (json.loads(line) for line in answered.text.splitlines())
    assert answered.headers["content-type"] == "application/x-ndjson"
    assert [piece["done"] for piece in pieces] == [False] * count
    assert (last["done"], last["done_reason"], last["eval_count"]) == (True, reason, count)
    assert answered.headers[header] == ignored


@when(
    parsers.parse('a client of Ollama\'s lists what is there and what runs, and unloads "{name}"'),
    target_fixture="seen",
)
def lists_and_unloads(machine: Machine, name: str) -> list[set[str]]:
    with client_of(machine) as http:
        seen = [{model["name"] for model in http.get(path).json()["models"]} for path in ("/api/tags", "/api/ps")]
        answer = http.post("/api/generate", json={"model": name, "keep_alive": 0}).json()
    assert answer["done_reason"] == "unload"
    return seen


@then(parsers.parse('it has seen "{name}" in both, and there are no workers'))
def saw_in_both(machine: Machine, seen: list[set[str]], name: str) -> None:
    assert all(name in names for names in seen)
    with client_of(machine) as http:
        assert workers_of(http) == []


@when(parsers.parse('a client of Ollama\'s chats with "{name}"'), target_fixture="answered")
def chats_ollama(machine: Machine, name: str) -> httpx.Response:
    with client_of(machine) as http:
        return http.post("/api/chat", json={"model": name, "messages": HELLO})


@then(parsers.parse('it gets status {status:d} and a text at "error" that names "{name}"'))
def refused_in_form(answered: httpx.Response, status: int, name: str) -> None:
    assert answered.status_code == status
    assert name in answered.json()["error"]


@when(parsers.parse('a client of llama-server\'s loads "{name}" and waits until its status says so'))
def loads(machine: Machine, name: str) -> None:
    with client_of(machine) as http:
        assert http.post("/models/load", json={"model": name}).json() == {"success": True}
        eventually(lambda: card(http, name)["status"]["value"] == "loaded", within=20, because="it is loaded")


@then(parsers.parse('it can read the tokens of a text, a prompt, the properties and the slots of "{name}"'))
def reads(machine: Machine, name: str) -> None:
    with client_of(machine) as http:
        tokens = http.post("/tokenize", json={"model": name, "content": "a bee flies"}).json()["tokens"]
        text = http.post("/detokenize", json={"model": name, "tokens": tokens}).json()["content"]
        prompt = http.post("/apply-template", json={"model": name, "messages": HELLO}).json()["prompt"]
        props = http.get("/props", params={"model": name}).json()
        slots = http.get("/slots", params={"model": name}).json()
    assert text == "a bee flies"
    assert "Bees?" in prompt
    assert len(slots) == props["total_slots"]


@then(parsers.parse('after it has unloaded "{name}" there are no workers'))
def unloads(machine: Machine, name: str) -> None:
    with client_of(machine) as http:
        assert http.post("/models/unload", json={"model": name}).json() == {"success": True}
        assert workers_of(http) == []
