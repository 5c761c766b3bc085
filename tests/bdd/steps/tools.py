"""Calls of tools, followed as they come."""

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
class Followed:
    """What came of a call: its name, how many pieces came before it, the pieces, and why the answer ended."""

    name: str = ""
    before: int = 0
    pieces: list[str] = field(default_factory=list)
    reason: str = ""


def follow_call(endpoint: Endpoint, model: str, tool: str, **wish: Any) -> Followed:
    followed = Followed()
    tools: Any = [{"type": "function", "function": {"name": tool, "parameters": {"type": "object"}}}]
    with endpoint.openai() as client:
        stream = client.chat.completions.create(model=model, messages=HELLO, tools=tools, stream=True, **wish)
        for chunk in stream:
            (choice,) = chunk.choices
            followed.reason = choice.finish_reason or followed.reason
            for call in choice.delta.tool_calls or ():
                assert call.function is not None
                if call.function.name:
                    followed.name, followed.before = call.function.name, len(followed.pieces)
                if call.function.arguments:
                    followed.pieces.append(call.function.arguments)
    return followed


@given(parsers.parse('the fake engine calls the tool "{tool}" for "{city}"'))
def fake_calls(machine: Machine, tool: str, city: str) -> None:
    call = json.dumps({"name": tool, "arguments": {"city": city}})
    machine.fake(template=TEMPLATE, text=f"<tool_call> {call} </tool_call>", length=7)


@when(parsers.parse('OpenAI\'s client follows a chat with the tool "{tool}"'), target_fixture="followed")
def follows_tool(endpoint: Endpoint, model: str, tool: str) -> Followed:
    return follow_call(endpoint, model, tool)


@when(
    parsers.parse('OpenAI\'s client follows a chat with the tool "{tool}" for {count:d} tokens'),
    target_fixture="followed",
)
def follows_tool_briefly(endpoint: Endpoint, model: str, tool: str, count: int) -> Followed:
    return follow_call(endpoint, model, tool, max_tokens=count)


@when(
    parsers.parse('OpenAI\'s client follows a call of "{tool}" by the queen\'s "{name}"'),
    target_fixture="followed",
)
def follows_tool_of_queen(machine: Machine, name: str, tool: str) -> Followed:
    return follow_call(queen_of(machine), name, tool)


@then(parsers.parse('the client knows the tool "{tool}" before its arguments'))
def knows_tool(followed: Followed, tool: str) -> None:
    assert (followed.name, followed.before) == (tool, 0)


@then(parsers.parse('the arguments come in several pieces, which together say that "{key}" is "{value}"'))
def arguments_come(followed: Followed, key: str, value: str) -> None:
    assert len(followed.pieces) > 1
    assert json.loads("".join(followed.pieces)) == {key: value}


@then(parsers.parse('the answer ended with "{reason}"'))
def ended_with(followed: Followed, reason: str) -> None:
    assert followed.reason == reason
