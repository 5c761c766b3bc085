"""A trace of a coding agent: thirty turns of tool calls, each with all that was said before.

It speaks to `/v1/messages`, as Claude Code does, whose first block of the system prompt is another one in every turn
(`cch=`): both servers leave that out.
"""

from __future__ import annotations

import http.client
import json
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from bench.rows import Row
from bench.servers import Server, ours, running, theirs

TURNS: Final = 30
CONTEXT: Final = 8192  # what the model was made for
TEMPLATE: Final = Path(__file__).parents[1] / "tests" / "support" / "tools.jinja"
_ROUTE: Final = "/v1/messages"
_SENTENCE: Final = "You are a careful agent that keeps bees and answers shortly. "
_SENTENCES: Final = 380  # with the tools some 6,000 tokens
_TOOLS: Final = 14
_TOKENS: Final = 8
_TIMEOUT_S: Final = 600


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn took: the share of its prompt that was read before, and the seconds to its first token."""

    cached: float
    first_token_s: float


def agent(rounds: int) -> list[Row]:
    """Return the least share of a prompt from the cache from the second turn on, and the time to the first token."""
    del rounds  # the turns are the measures
    template = ("--chat-template-file", str(TEMPLATE))
    with running(ours(1, CONTEXT, *template)) as server:
        mine = trace(server, TURNS)[1:]
    launch = theirs(1, CONTEXT)
    launch.command += template
    with running(launch) as server:
        peer = trace(server, TURNS)[1:]
    first = median(turn.first_token_s for turn in mine)
    return [
        Row("agent_cached_least", min(turn.cached for turn in mine), 1.0, "whole prompt", "share", ">=0.95"),
        Row("agent_first_token", first, median(turn.first_token_s for turn in peer), "llama-server", "s", "<=0.5"),
    ]


def trace(server: Server, turns: int) -> list[Turn]:
    """Run so many turns, of which each answers the call of a tool in the one before."""
    history: list[dict[str, Any]] = [{"role": "user", "content": "Look into the hives."}]
    done = []
    for number in range(turns):
        done.append(_ask(server, number, history))
        call = {"type": "tool_use", "id": f"toolu_{number}", "name": "tool_1", "input": {"hive": "north"}}
        result = {"type": "tool_result", "tool_use_id": call["id"], "content": f"{number} thousand bees."}
        history.append({"role": "assistant", "content": [{"type": "text", "text": "I look."}, call]})
        history.append({"role": "user", "content": [result]})
    return done


def _ask(server: Server, number: int, history: list[dict[str, Any]]) -> Turn:
    head = f"x-anthropic-billing-header: cc_version=2.1; cch={number * 7919:05x};"
    body = {
        "model": "bench",
        "system": [{"type": "text", "text": head}, {"type": "text", "text": _SENTENCE * _SENTENCES}],
        "messages": history,
        "tools": [_tool(index) for index in range(_TOOLS)],
        "tool_choice": {"type": "none"},
        "max_tokens": _TOKENS,
        "temperature": 0,
        "stream": True,
    }
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=_TIMEOUT_S)
    began, first_token_s = time.perf_counter(), 0.0
    usage: dict[str, int] = {}
    try:
        headers = {**server.headers, "Content-Type": "application/json"}
        connection.request("POST", _ROUTE, json.dumps(body).encode(), headers)
        answer = connection.getresponse()
        if answer.status != http.client.OK:
            raise RuntimeError(f"{_ROUTE}: {answer.status} {answer.read()[:500]!r}")
        for line in answer:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            if event["type"] == "content_block_delta" and not first_token_s:
                first_token_s = time.perf_counter() - began
            usage |= event.get("usage") or event.get("message", {}).get("usage") or {}
    finally:
        connection.close()
    cached = usage.get("cache_read_input_tokens", 0)
    return Turn(cached / max(cached + usage.get("input_tokens", 0), 1), first_token_s or time.perf_counter() - began)


def _tool(number: int) -> dict[str, Any]:
    purpose = "Looks into a hive and tells what its bees do there in that hour. " * 4
    properties = {"hive": {"type": "string", "description": "Which hive."}, "hours": {"type": "integer"}}
    schema = {"type": "object", "properties": properties, "required": ["hive"]}
    return {"name": f"tool_{number}", "description": purpose, "input_schema": schema}
