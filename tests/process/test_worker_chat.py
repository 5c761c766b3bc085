"""Answers of models in their own forms, in each dialect: thoughts, text and calls apart; with the fake engine."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chat.answers import CHAT, HELLO, ask_all, chat, fake_options, lines, messages, responses, streamed_chat
from tests.chat.conversations import TOOL
from tests.chat.outputs import OUTPUTS, Output
from tests.support.worker import Worker, worker

pytestmark = [pytest.mark.process, pytest.mark.engine]
CALLED = {"hive": "north", "hours": 3}
QWEN = "Qwen-Qwen3-0.6B"
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
TEMPLATE = (Path(__file__).parents[1] / "support" / "tools.jinja").read_text()
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'


@pytest.mark.parametrize("output", OUTPUTS, ids=lambda one: one.template)
def test_an_answer_comes_out_apart_in_each_dialect(tmp_path: Path, output: Output) -> None:
    """Thought, text and call are told each in its place, whole or as they come, with the dialect's own reason."""
    with worker(tmp_path, fake=fake_options(output.template, output.text)) as it:
        it.until_idle()
        told = ask_all(it.http)

    for name, one in told.items():
        assert one.thought.strip() == output.thought, name
        assert one.content.strip() == output.content, name
        assert [(tool, json.loads(arguments)) for tool, arguments in one.calls] == [("count_bees", CALLED)], name
    assert [one.reason for one in told.values()] == ["tool_calls", "tool_calls", "tool_use", "completed", "stop"]


@pytest.mark.parametrize("output", OUTPUTS, ids=lambda one: one.template)
def test_a_malformed_call_degrades_to_text(tmp_path: Path, output: Output) -> None:
    """What is no call after all is text, and no error; nothing that was told is taken back."""
    with worker(tmp_path, fake=fake_options(output.template, output.malformed)) as it:
        it.until_idle()
        whole = chat(it.http)
        told = [streamed_chat(it.http), messages(it.http), responses(it.http)]

    assert whole.content == (output.rest or output.malformed)
    for one in told:
        assert one.content.endswith(whole.content[-3:])
        assert not one.calls or one.calls[0][0] == "count_bees"


@pytest.mark.parametrize("limit", [3, 6, 9])
def test_an_answer_that_is_cut_off_says_so(tmp_path: Path, limit: int) -> None:
    """A thought, a text or a call that the limit ends is told as far as it came, and as cut."""
    output = next(one for one in OUTPUTS if one.template == QWEN)
    with worker(tmp_path, fake=fake_options(QWEN, output.text)) as it:
        it.until_idle()
        told = [chat(it.http, max_tokens=limit), streamed_chat(it.http, max_tokens=limit)]

    assert told[0] == told[1]
    assert told[0].reason == "length"
    assert output.thought.startswith(told[0].thought.strip())
    assert "tool_call" not in told[0].content


def test_usage_counts_the_thought(tmp_path: Path) -> None:
    """The tokens of a thought are told apart from those of the rest, of which they are a part."""
    output = next(one for one in OUTPUTS if one.template == QWEN)
    with worker(tmp_path, fake=fake_options(QWEN, output.text)) as it:
        it.until_idle()
        usage = it.http.post(CHAT, json={"messages": HELLO, "tools": [TOOL]}).json()["usage"]
        thoughtless = it.http.post("/v1/completions", json={"prompt": "x"}).json()["usage"]

    details = usage["completion_tokens_details"]["reasoning_tokens"]
    assert details == len(["<think>", "Let", "me", "count.", "</think>"])
    assert details < usage["completion_tokens"]
    assert thoughtless["completion_tokens_details"]["reasoning_tokens"] == 0


def test_a_budget_ends_a_thought(tmp_path: Path) -> None:
    """A thought that has had its tokens is closed by force, and the answer goes on after it."""
    with worker(tmp_path, fake=fake_options(QWEN, f"<think>\n{'hm ' * 200}\n</think>\n\nDone.") | {"length": 60}) as it:
        it.until_idle()
        told = chat(it.http, tools=[], thinking_budget_tokens=10)
        body = {"messages": HELLO, "max_tokens": 50, "thinking": {"type": "enabled", "budget_tokens": 10}}
        blocks = it.http.post("/v1/messages", json=body).json()["content"]

    assert 5 <= told.thought.split().count("hm") <= 10
    assert "hm" in told.content
    assert [block["type"] for block in blocks] == ["thinking", "text"]
    assert blocks[0]["thinking"].strip() == told.thought.strip()


def test_what_is_left_out_is_named(tmp_path: Path) -> None:
    """Tools that are no functions and items that no model understands are named in a header, and the rest is done."""
    with worker(tmp_path, fake={"length": 3}) as it:
        it.until_idle()
        for path, body, named in (
            (CHAT, {"messages": HELLO, "tools": [TOOL, {"type": "custom", "custom": {"name": "patch"}}]}, "custom"),
            (
                "/v1/messages",
                {"messages": HELLO, "max_tokens": 5, "tools": [{"type": "web_search_20250305", "name": "web_search"}]},
                "web_search_20250305",
            ),
            (
                "/v1/responses",
                {
                    "input": [{"type": "web_search_call", "id": "x"}, {"role": "user", "content": "Bees?"}],
                    "tools": [{"type": "namespace", "name": "fs", "tools": []}, {"type": "local_shell"}],
                },
                "namespace, tools: local_shell, input.0: web_search_call",
            ),
        ):
            response = it.http.post(path, json=body)
            assert response.status_code == 200, response.text
            assert named in response.headers["x-rbee-ignored"]
        assert "x-rbee-ignored" not in it.http.post(CHAT, json={"messages": HELLO}).headers


@pytest.fixture(scope="module", name="caller")
def _caller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """One worker whose model calls a tool twice, whatever it is asked."""
    fake = {"template": TEMPLATE, "text": f"{CALL}\n{CALL}", "length": 14}
    with worker(tmp_path_factory.mktemp("caller"), fake=fake) as it:
        it.until_idle()
        yield it


def asked(**fields: Any) -> dict[str, Any]:
    """Return the body of a chat."""
    return {"messages": HELLO, **fields}


def test_calls_are_told_in_parallel(caller: Worker) -> None:
    """Two calls in one answer are two calls with ids of their own, and the reason says so; streamed too."""
    (choice,) = caller.http.post(CHAT, json=asked(tools=[WEATHER])).json()["choices"]
    streamed = list(lines(caller.http, CHAT, asked(tools=[WEATHER])))
    deltas = [call for chunk in streamed for call in chunk["choices"][0]["delta"].get("tool_calls", ())]

    told = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == streamed[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    assert [call["function"]["name"] for call in told] == ["weather", "weather"]
    assert [json.loads(call["function"]["arguments"]) for call in told] == [{"city": "Paris"}] * 2
    assert len({call["id"] for call in told}) == 2
    for index, call in enumerate(told):
        first, *rest = [delta for delta in deltas if delta["index"] == index]
        assert (first["function"]["name"], first["type"]) == ("weather", "function")
        assert first["id"]
        assert all(set(delta) == {"index", "function"} for delta in rest)
        assert rest
        assert "".join(delta["function"]["arguments"] for delta in (first, *rest)) == call["function"]["arguments"]


@pytest.mark.parametrize(
    ("path", "body", "limit", "end"),
    [
        (CHAT, asked(tools=[WEATHER]), "max_tokens", '"finish_reason": "length"'),
        (
            "/v1/messages",
            {"messages": HELLO, "tools": [{"name": "weather", "input_schema": {}}]},
            "max_tokens",
            '"stop_reason": "max_tokens"',
        ),
        (
            "/v1/responses",
            {"input": "x", "tools": [{"type": "function", "name": "weather"}]},
            "max_output_tokens",
            '"reason": "max_output_tokens"',
        ),
    ],
)
def test_a_call_that_is_cut_off_is_said_to_be(
    caller: Worker, path: str, body: dict[str, Any], limit: str, end: str
) -> None:
    """An answer that ends within a call says that it was cut, and has no call that looks whole; streamed or not."""
    with caller.http.stream("POST", path, json={**body, limit: 5, "stream": True}) as response:
        told = response.read().decode()
    whole = caller.http.post(path, json={**body, limit: 5})

    pieces = re.findall(r'"(?:arguments|partial_json|delta)": ("(?:[^"\\]|\\.)*")', told.partition(end)[0])
    assert "".join(map(json.loads, pieces)).startswith('{"city":')
    assert end in told
    assert end in json.dumps(whole.json())
    assert whole.status_code == 200
    for text in (told, whole.text):
        assert "weather" in text
        assert "tool_call>" not in text
        assert '"stop_reason": "tool_use"' not in text
        assert "arguments.done" not in text


def test_one_call_is_enough_where_only_one_is_wished(caller: Worker) -> None:
    """Without parallel calls the answer ends after the first."""
    (choice,) = caller.http.post(CHAT, json=asked(tools=[WEATHER], parallel_tool_calls=False)).json()["choices"]

    assert len(choice["message"]["tool_calls"]) == 1
    assert choice["finish_reason"] == "tool_calls"


def test_without_tools_a_call_is_text(caller: Worker) -> None:
    """Where no tools were given, or none may be called, what the model writes is text."""
    for fields in ({}, {"tools": [WEATHER], "tool_choice": "none"}):
        (choice,) = caller.http.post(CHAT, json=asked(**fields)).json()["choices"]

        assert choice["message"]["content"].startswith("<tool_call>")
        assert choice["finish_reason"] == "stop"


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_within_a_call_leaves_it_cut(caller: Worker, stream: bool) -> None:
    """A call that a client's stop string ends is no whole call, and the answer ended for the stop."""
    body = asked(tools=[WEATHER], stop=["Paris"])
    if stream:
        told = list(lines(caller.http, CHAT, body))
        arguments = "".join(
            call["function"]["arguments"] for one in told for call in one["choices"][0]["delta"].get("tool_calls", ())
        )
        reason = told[-1]["choices"][0]["finish_reason"]
    else:
        (choice,) = caller.http.post(CHAT, json=body).json()["choices"]
        arguments, reason = choice["message"]["tool_calls"][0]["function"]["arguments"], choice["finish_reason"]

    assert (arguments, reason) == ('{"city": "', "stop")


def test_a_stop_within_a_mark_does_not_show_it(tmp_path: Path) -> None:
    """Where an answer is stopped before its thought has begun, the mark of the thought is no text."""
    with worker(tmp_path, fake=fake_options(QWEN, "<think>\nHm.\n</think>\n\nDone.")) as it:
        it.until_idle()
        told = [chat(it.http, stop=["Hm"]), streamed_chat(it.http, stop=["Hm"])]

    assert [(one.thought, one.content, one.reason) for one in told] == [("", "", "stop")] * 2


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        (
            CHAT,
            asked(tools=[{"type": "custom"}, {"type": "function", "function": {"name": "a"}}]),
            "function.parameters",
        ),
        (
            "/v1/messages",
            {"messages": HELLO, "max_tokens": 9, "tools": [{"type": "bash"}, {"name": "a"}]},
            "input_schema",
        ),
        ("/v1/responses", {"input": "x", "tools": [{"type": "bash"}, {"type": "function", "name": "a"}]}, "parameters"),
        (
            "/api/chat",
            {"messages": HELLO, "stream": False, "tools": [WEATHER, {"function": {"name": "a"}}]},
            "function.parameters",
        ),
    ],
)
def test_a_schema_is_named_as_the_request_has_it(caller: Worker, path: str, body: dict[str, Any], field: str) -> None:
    """What cannot be held is told with the field in which the client wrote it, in the header and in a refusal."""
    schema = {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}
    tool = body["tools"][1].get("function", body["tools"][1])
    tool[field.rpartition(".")[2]] = schema

    free = caller.http.post(path, json=body)
    tool["strict"] = True
    strict = caller.http.post(path, json=body)

    assert f"tools.1.{field}: Unimplemented keys" in free.headers["x-rbee-ignored"]
    assert strict.status_code == 400
    assert f"tools.1.{field}: the schema cannot be used" in strict.text
