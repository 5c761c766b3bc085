"""Steps with the official clients of OpenAI and Anthropic, as programs use them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import anthropic
import httpx
import openai
from pytest_bdd import given, parsers, then, when

from tests.bdd.steps.daemons import HiveUnderTest
from tests.support.machine import Machine
from tests.support.waiting import eventually

HELLO: Any = [{"role": "user", "content": "Name three kinds of bees."}]
DEEP: Any = json.loads('{"items":' * 70 + "{}" + "}" * 70)
IMPOSSIBLE: dict[str, dict[str, Any]] = {
    "a thousand answers": {"n": 1000},
    "an empty grammar": {"extra_body": {"grammar": " "}},
    "a chat": {},
    "a tool that has no name": {"tools": [{"type": "function", "function": {"name": ""}}]},
    "a schema that is nested deeply": {
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": DEEP}}
    },
    "an unknown token": {"logit_bias": {"9999999999": 1}},
}


@dataclass
class Endpoint:
    """Where a client is pointed, and the key that it has."""

    url: str
    key: str

    def openai(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=self.key, max_retries=0, timeout=60)


@dataclass
class Answer:
    """What a client got: the counts and the end, or an error."""

    tokens: int = 0
    reason: str = ""
    error: Any = None
    names: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)


def attempt(call: Callable[[], Answer]) -> Answer:
    try:
        return call()
    except openai.APIError as error:
        return Answer(error=error)


def chat(endpoint: Endpoint, model: str, **fields: Any) -> Answer:
    with endpoint.openai() as client:
        got = client.chat.completions.create(model=model, messages=HELLO, **fields)
    assert got.usage is not None
    return Answer(got.usage.completion_tokens, str(got.choices[0].finish_reason))


def stream(endpoint: Endpoint, model: str, **fields: Any) -> Answer:
    answer = Answer()
    with endpoint.openai() as client:
        options: Any = {"include_usage": True}
        for chunk in client.chat.completions.create(
            model=model, messages=HELLO, stream=True, stream_options=options, **fields
        ):
            answer.reason = (chunk.choices[0].finish_reason if chunk.choices else None) or answer.reason
            answer.tokens = chunk.usage.completion_tokens if chunk.usage else answer.tokens
    return answer


def queen_of(machine: Machine) -> Endpoint:
    key = (machine.home / "secrets" / "api-key").read_text().strip()
    return Endpoint(f"http://127.0.0.1:{machine.queen_port}", key)


@given(parsers.parse("the worker of bee crashes after {count:d} tokens"))
def fake_dies(machine: Machine, count: int) -> None:
    machine.fake(exit_after=count)


@given("a worker of that hive for bee", target_fixture="endpoint")
def worker_of_hive(hive: HiveUnderTest, model: str) -> Endpoint:
    link = hive.spawn(model)
    eventually(lambda: hive.workers()[0]["state"] == "idle", within=15, because="the worker is idle")
    return Endpoint(link["worker"]["url"], link["api_key"])


@when(parsers.parse("OpenAI's client chats with it for {count:d} tokens"), target_fixture="answer")
def chats_with_it(endpoint: Endpoint, model: str, count: int) -> Answer:
    return chat(endpoint, model, max_tokens=count)


@when(parsers.parse("OpenAI's client streams a chat of {count:d} tokens"), target_fixture="answer")
def streams_it(endpoint: Endpoint, model: str, count: int) -> Answer:
    return stream(endpoint, model, max_tokens=count)


@when(parsers.parse("Anthropic's client chats with it for {count:d} tokens"), target_fixture="answer")
def anthropic_chats(endpoint: Endpoint, model: str, count: int) -> Answer:
    with anthropic.Anthropic(base_url=endpoint.url, api_key=endpoint.key, max_retries=0) as client:
        got = client.messages.create(model=model, messages=HELLO, max_tokens=count)
    return Answer(got.usage.output_tokens, {"max_tokens": "length"}.get(str(got.stop_reason), str(got.stop_reason)))


@when(parsers.re(r"OpenAI's client asks for (?P<thing>(a|an) .+)"), target_fixture="answer")
def asks_for(endpoint: Endpoint, model: str, thing: str) -> Answer:
    if thing != "an embedding":
        return attempt(lambda: chat(endpoint, model, **IMPOSSIBLE[thing]))

    def embed() -> Answer:
        with endpoint.openai() as client:
            client.embeddings.create(model=model, input="bees")
        return Answer()

    return attempt(embed)


@when(parsers.parse("OpenAI's client chats with the queen's \"{name}\" for {count:d} tokens"), target_fixture="answer")
def chats_with_queen(machine: Machine, name: str, count: int) -> Answer:
    return attempt(lambda: chat(queen_of(machine), name, max_tokens=count))


@when(
    parsers.parse("OpenAI's client chats with the queen's \"{name}\" for {count:d} tokens and asks to be redirected"),
    target_fixture="answer",
)
def chats_directly(machine: Machine, name: str, count: int) -> Answer:
    headers = {"X-Rbee-Direct": "true"}
    return attempt(lambda: chat(queen_of(machine), name, max_tokens=count, extra_headers=headers))


@then("no answer has passed through the queen")
def nothing_relayed(machine: Machine) -> None:
    queen = queen_of(machine)
    headers = {"Authorization": f"Bearer {queen.key}"}
    metrics = httpx.get(f"{queen.url}/metrics", headers=headers, timeout=60, trust_env=False).text
    counts = [line for line in metrics.splitlines() if line.startswith("rbee_queen_usage_tokens_total{")]
    assert counts
    assert all(line.endswith(" 0.0") for line in counts), counts


@when(parsers.parse("OpenAI's client streams a chat with the queen's \"{name}\""), target_fixture="answer")
def streams_from_queen(machine: Machine, name: str) -> Answer:
    return attempt(lambda: stream(queen_of(machine), name, max_tokens=50))


@when(parsers.parse('a client streams a chat with the queen\'s "{name}"'), target_fixture="answer")
def plain_client_streams(machine: Machine, name: str) -> Answer:
    queen = queen_of(machine)
    body = {"model": name, "messages": HELLO, "max_tokens": 5, "stream": True}
    headers = {"Authorization": f"Bearer {queen.key}"}
    with httpx.stream(
        "POST", f"{queen.url}/v1/chat/completions", json=body, headers=headers, timeout=60, trust_env=False
    ) as response:
        return Answer(lines=list(response.iter_lines()))


@when("OpenAI's client lists the queen's models", target_fixture="answer")
def lists_models(machine: Machine) -> Answer:
    with queen_of(machine).openai() as client:
        return Answer(names=[card.id for card in client.models.list()])


@then(parsers.parse('the client gets an answer of {count:d} tokens that ends with "{reason}"'))
def has_answer(answer: Answer, count: int, reason: str) -> None:
    assert answer.error is None
    assert (answer.tokens, answer.reason) == (count, reason)


@then(parsers.parse('the client gets status {status:d} and an error that names the field "{field}"'))
def is_refused(answer: Answer, status: int, field: str) -> None:
    assert isinstance(answer.error, openai.APIStatusError)
    assert (answer.error.status_code, answer.error.param) == (status, field)
    assert len(answer.error.message) > len("Error code: 400 - ")


@then(parsers.parse('the client gets status {status:d} and a message that names "{name}"'))
def gets_names(answer: Answer, status: int, name: str) -> None:
    assert isinstance(answer.error, openai.APIStatusError)
    assert answer.error.status_code == status
    assert name in answer.error.message


@then(parsers.parse('the client raises an error that says "{words}"'))
def raises(answer: Answer, words: str) -> None:
    assert isinstance(answer.error, openai.APIError)
    assert words in answer.error.message


@then("the stream reports the start of the worker before the first token")
def start_is_reported(answer: Answer) -> None:
    first = next(number for number, line in enumerate(answer.lines) if line.startswith("data: "))
    assert any(line.startswith(": ") and "starting" in line for line in answer.lines[:first])


@then(parsers.parse('"{name}" is in the list'))
def is_listed(answer: Answer, name: str) -> None:
    assert name in answer.names
