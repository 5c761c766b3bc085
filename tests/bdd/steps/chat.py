"""Steps of clients that talk with models in their own words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pytest_bdd import given, parsers, then, when

from tests.bdd.steps.clients import Endpoint, queen_of
from tests.chat.answers import TEMPLATES, Told, ask_all, fake_options
from tests.chat.conversations import CONVERSATIONS, lost_texts
from tests.chat.outputs import OUTPUTS
from tests.support.machine import Machine
from tests.support.models import smollm2_path
from tests.support.worker import Worker, worker

CITY: Any = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}},
    "required": ["city"],
    "additionalProperties": False,
}
IMAGE = "data:image/png;base64,iVBORw0KGgo="


@when(parsers.parse("the template of {model} renders the six conversations"), target_fixture="lost")
def renders_conversations(model: str) -> list[str]:
    return [lost for conversation in CONVERSATIONS for lost in lost_texts(TEMPLATES.source(model), conversation)]


@then("no text of them is lost, and those of users, assistants and tools are in their order")
def nothing_lost(lost: list[str]) -> None:
    assert lost == []


@given(parsers.parse("bee answers as {model} does, with a thought and a call"))
def answers_as(machine: Machine, model: str) -> None:
    machine.fake(**fake_options(model, next(one.text for one in OUTPUTS if one.template == model)))


@given(parsers.parse("bee answers as {model} does, with a thought without end"))
def thinks_for_ever(machine: Machine, model: str) -> None:
    machine.fake(**{**fake_options(model, f"<think>\n{'hm ' * 200}"), "length": 60})


@when("clients of chats, messages and responses ask for an answer, as a stream and at once", target_fixture="told")
def ask_for_answers(endpoint: Endpoint) -> dict[str, Told]:
    with client(endpoint) as http:
        return ask_all(http)


@then("each of them gets the thought, the text and the call, each in its place")
def gets_each_in_its_place(machine: Machine, told: dict[str, Told]) -> None:
    output = next(one for one in OUTPUTS if one.text == machine.tables["worker"]["fake"]["text"])
    for name, one in told.items():
        assert (one.thought.strip(), one.content.strip()) == (output.thought, output.content), name
        assert [(tool, json.loads(arguments)) for tool, arguments in one.calls] == [
            ("count_bees", {"hive": "north", "hours": 3})
        ], name


@when(parsers.parse("a client of messages asks for a thought of {budget:d} tokens at most"), target_fixture="blocks")
def asks_with_budget(endpoint: Endpoint, budget: int) -> list[dict[str, Any]]:
    body = {"messages": hello(), "max_tokens": 50, "thinking": {"type": "enabled", "budget_tokens": budget}}
    with client(endpoint) as http:
        response = http.post("/v1/messages", json=body)
    assert response.status_code == 200, response.text
    blocks: list[dict[str, Any]] = response.json()["content"]
    return blocks


@then(parsers.parse("the thought has {budget:d} words at most, and text follows it"))
def thought_is_short(blocks: list[dict[str, Any]], budget: int) -> None:
    thought, text = blocks
    assert 0 < len(thought["thinking"].split()) <= budget
    assert "hm" in text["text"]


@when(
    parsers.parse('a client of responses offers the queen\'s "{name}" a web search, and tells of one in its history'),
    target_fixture="response",
)
def offers_web_search(machine: Machine, name: str) -> httpx.Response:
    items = [{"type": "web_search_call", "id": "ws_1"}, {"role": "user", "content": "Bees?"}]
    body = {"model": name, "input": items, "tools": [{"type": "web_search"}], "max_output_tokens": 5}
    with client(queen_of(machine)) as http:
        return http.post("/v1/responses", json=body)


@then(parsers.parse('it gets an answer whose header "{header}" names "{one}" and "{other}"'))
def header_names(response: httpx.Response, header: str, one: str, other: str) -> None:
    assert response.status_code == 200, response.text
    assert one in response.headers[header]
    assert other in response.headers[header]


@when("clients of chats, messages and responses send an image", target_fixture="refusals")
def send_image(endpoint: Endpoint) -> list[httpx.Response]:
    source = {"type": "base64", "media_type": "image/png", "data": IMAGE.partition(",")[2]}
    parts = {
        "chats": {"type": "image_url", "image_url": {"url": IMAGE}},
        "messages": {"type": "image", "source": source},
        "responses": {"type": "input_image", "image_url": IMAGE},
    }
    with client(endpoint) as http:
        return [http.post(path, json=body) for path, body in bodies({name: [part] for name, part in parts.items()})]


@when(parsers.parse("clients of chats, messages and responses send {count:d} words"), target_fixture="refusals")
def send_words(endpoint: Endpoint, count: int) -> list[httpx.Response]:
    text = "bee " * count
    with client(endpoint) as http:
        return [
            http.post(path, json=body) for path, body in bodies({"chats": text, "messages": text, "responses": text})
        ]


@then("each of them is refused with a message that says that the model reads text only")
def refused_image(refusals: list[httpx.Response]) -> None:
    assert [response.status_code for response in refusals] == [400, 400, 400]
    assert all("reads text only" in response.json()["error"]["message"] for response in refusals)


@then(parsers.parse('each of them is refused with the code "{code}" and "{words}"'))
def refused_overflow(refusals: list[httpx.Response], code: str, words: str) -> None:
    assert [response.status_code for response in refusals] == [400, 400, 400]
    for response in refusals:
        assert re.sub(r"\s+", " ", response.json()["error"]["message"]).count(words) == 1
        assert code in response.text


@given(parsers.parse("the real model with the chat template of {model}"), target_fixture="thinker")
def real_thinker(tmp_path: Path, model: str) -> Iterator[Worker]:
    template = tmp_path / "template.jinja"
    template.write_text(TEMPLATES.source(model), encoding="utf-8")
    with worker(tmp_path, "--chat-template-file", str(template), model=smollm2_path()) as it:
        it.until_idle()
        yield it


@when(
    parsers.parse("a client asks it for a city in JSON, with a thought of {budget:d} tokens at most"),
    target_fixture="message",
)
def asks_for_city(thinker: Worker, budget: int) -> dict[str, Any]:
    body = {
        "messages": hello(),
        "response_format": {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY, "strict": True}},
        "thinking_budget_tokens": budget,
        "max_tokens": 60,
        "temperature": 0,
    }
    response = thinker.http.post("/v1/chat/completions", json=body)
    assert response.status_code == 200, response.text
    message: dict[str, Any] = response.json()["choices"][0]["message"]
    return message


@then("the thought is no JSON, and the answer fits the schema")
def thought_then_json(message: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"Expecting|Extra"):
        json.loads(message["reasoning_content"])
    answer = json.loads(message["content"])
    assert set(answer) == {"city"}
    assert len(answer["city"]) <= 12


def hello() -> list[dict[str, str]]:
    return [{"role": "user", "content": "Name a city."}]


def client(endpoint: Endpoint) -> httpx.Client:
    headers = {"Authorization": f"Bearer {endpoint.key}"}
    return httpx.Client(base_url=endpoint.url, headers=headers, timeout=60, trust_env=False)


def bodies(content: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "/v1/chat/completions", {"messages": [{"role": "user", "content": content["chats"]}]}
    yield "/v1/messages", {"messages": [{"role": "user", "content": content["messages"]}], "max_tokens": 5}
    yield "/v1/responses", {"input": [{"role": "user", "content": content["responses"]}]}
