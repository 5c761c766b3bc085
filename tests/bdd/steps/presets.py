"""Steps of clients that ask for presets, or for models that cannot be served."""

from __future__ import annotations

import httpx
from pytest_bdd import parsers, then, when

from tests.bdd.steps.clients import Answer, attempt, chat, queen_of
from tests.bdd.steps.other_servers import HELLO, client_of
from tests.support.machine import Machine


@when(parsers.parse("OpenAI's client chats with the queen's \"{name}\" and says nothing else"), target_fixture="answer")
def chats_plainly(machine: Machine, name: str) -> Answer:
    return attempt(lambda: chat(queen_of(machine), name))


@when(parsers.parse('a client asks for "{name}"'), target_fixture="answered")
def asks_for_declared(machine: Machine, name: str) -> httpx.Response:
    with client_of(machine) as http:
        return http.post("/v1/chat/completions", json={"model": name, "messages": HELLO, "max_tokens": 5})


@then(parsers.parse('it is answered by "{name}", which the header "{header}" names too'))
def is_answered_by(answered: httpx.Response, name: str, header: str) -> None:
    assert answered.status_code == 200, answered.text
    assert (answered.json()["model"], answered.headers[header]) == (name, name)
