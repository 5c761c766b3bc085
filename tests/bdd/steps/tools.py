"""Steps of a client that streams calls of tools."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_bdd import given, parsers, then, when

from tests.bdd.steps.clients import HELLO, Endpoint, queen_of
from tests.support.machine import Machine

TEMPLATE = (Path(__file__).parents[2] / "support" / "tools.jinja").read_text()


@dataclass
class StreamedCall:
    """What came of a call: its name, how many pieces came before it, the pieces, and why the answer ended."""

    name: str = ""
    before: int = 0
    pieces: list[str] = field(default_factory=list)
    reason: str = ""


def stream_call(endpoint: Endpoint, model: str, tool: str, **options: Any) -> StreamedCall:
    streamed = StreamedCall()
    tools: Any = [{"type": "function", "function": {"name": tool, "parameters": {"type": "object"}}}]
    with endpoint.openai() as client:
        stream = client.chat.completions.create(model=model, messages=HELLO, tools=tools, stream=True, **options)
        for chunk in stream:
            (choice,) = chunk.choices
            streamed.reason = choice.finish_reason or streamed.reason
            for call in choice.delta.tool_calls or ():
                assert call.function is not None
                if call.function.name:
                    streamed.name, streamed.before = call.function.name, len(streamed.pieces)
                if call.function.arguments:
                    streamed.pieces.append(call.function.arguments)
    return streamed


@given(parsers.parse('bee calls the tool "{tool}" for "{city}"'))
def fake_calls(machine: Machine, tool: str, city: str) -> None:
    call = json.dumps({"name": tool, "arguments": {"city": city}})
    machine.fake(template=TEMPLATE, text=f"<tool_call>\n{call}\n</tool_call>", length=7, tokens_per_s=20)


@when(parsers.parse('OpenAI\'s client streams a chat with the tool "{tool}"'), target_fixture="call")
def streams_call(endpoint: Endpoint, model: str, tool: str) -> StreamedCall:
    return stream_call(endpoint, model, tool)


@when(
    parsers.parse('OpenAI\'s client streams a chat with the tool "{tool}" for {count:d} tokens'),
    target_fixture="call",
)
def streams_short_call(endpoint: Endpoint, model: str, tool: str, count: int) -> StreamedCall:
    return stream_call(endpoint, model, tool, max_tokens=count)


@when(
    parsers.parse('OpenAI\'s client asks the queen\'s "{name}" with the tool "{tool}"'),
    target_fixture="call",
)
def streams_call_of_queen(machine: Machine, name: str, tool: str) -> StreamedCall:
    return stream_call(queen_of(machine), name, tool)


@then(parsers.parse('the client gets the name "{tool}" before the arguments'))
def gets_name_first(call: StreamedCall, tool: str) -> None:
    assert (call.name, call.before) == (tool, 0)


@then(parsers.parse('the arguments come in several pieces and together give "{value}" as "{key}"'))
def arguments_come(call: StreamedCall, key: str, value: str) -> None:
    assert len(call.pieces) > 1
    assert json.loads("".join(call.pieces)) == {key: value}


@then(parsers.parse('the answer ends with "{reason}"'))
def ends_with_reason(call: StreamedCall, reason: str) -> None:
    assert call.reason == reason
