"""Ask for answers in each interface, streamed and at once, and read what is told of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from rbee.worker.chat import library
from tests.chat.conversations import FUNCTION, TOOL

CHAT: Final = "/v1/chat/completions"
HELLO: Final = [{"role": "user", "content": "How many bees are in the north hive?"}]


class Templates:
    """The templates that llama.cpp ships, which the build of its wheel puts into it."""

    def paths(self) -> list[Path]:
        """Return their files."""
        package = library.folder()
        return [] if package is None else sorted(package.glob("chat_templates/*.jinja"))

    def source(self, name: str) -> str:
        """Return the text of one."""
        return next(path for path in self.paths() if path.stem == name).read_text(encoding="utf-8")


TEMPLATES: Final = Templates()


@dataclass(frozen=True)
class Told:
    """What a dialect told of an answer: calls are names and arguments."""

    thought: str
    content: str
    calls: list[tuple[str, Any]]
    reason: str


def lines(http: httpx.Client, path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the events of a stream."""
    with http.stream("POST", path, json={**body, "stream": True}) as response:
        assert response.status_code == 200, response.read()
        for line in response.iter_lines():
            if line.startswith("data: ") and line != "data: [DONE]":
                yield json.loads(line.removeprefix("data: "))


def chat(http: httpx.Client, **fields: Any) -> Told:
    """Ask for a chat completion."""
    response = http.post(CHAT, json={"messages": HELLO, "tools": [TOOL], **fields})
    assert response.status_code == 200, response.text
    (choice,) = response.json()["choices"]
    message = choice["message"]
    calls = [(call["function"]["name"], call["function"]["arguments"]) for call in message.get("tool_calls", ())]
    return Told(message.get("reasoning_content", ""), message["content"] or "", calls, choice["finish_reason"])


def streamed_chat(http: httpx.Client, **fields: Any) -> Told:
    """Ask for a chat completion as a stream."""
    thought, content, reason = "", "", ""
    calls: dict[int, list[str]] = {}
    for chunk in lines(http, CHAT, {"messages": HELLO, "tools": [TOOL], **fields}):
        (choice,) = chunk["choices"]
        delta = choice["delta"]
        thought += delta.get("reasoning_content", "")
        content += delta.get("content") or ""
        for call in delta.get("tool_calls", ()):
            name_and_arguments = calls.setdefault(call["index"], [call["function"].get("name", ""), ""])
            name_and_arguments[1] += call["function"]["arguments"]
        reason = choice["finish_reason"] or reason
    return Told(thought, content, [(name, arguments) for name, arguments in calls.values()], reason)


def messages(http: httpx.Client) -> Told:
    """Ask for a message of Anthropic's as a stream."""
    tool = {"name": FUNCTION["name"], "input_schema": FUNCTION["parameters"]}
    blocks: dict[int, dict[str, Any]] = {}
    reason = ""
    for event in lines(http, "/v1/messages", {"messages": HELLO, "tools": [tool], "max_tokens": 500}):
        if event["type"] == "content_block_start":
            blocks[event["index"]] = {**event["content_block"], "told": ""}
        elif event["type"] == "content_block_delta":
            delta = event["delta"]
            blocks[event["index"]]["told"] += (
                delta.get("thinking") or delta.get("text") or delta.get("partial_json") or ""
            )
        elif event["type"] == "message_delta":
            reason = event["delta"]["stop_reason"]
    kinds = [block["type"] for block in blocks.values()]
    texts = {kind: "".join(block["told"] for block in blocks.values() if block["type"] == kind) for kind in kinds}
    calls = [(block["name"], block["told"]) for block in blocks.values() if block["type"] == "tool_use"]
    return Told(texts.get("thinking", ""), texts.get("text", ""), calls, reason)


def responses(http: httpx.Client) -> Told:
    """Ask for a response as a stream, whose events are numbered, and whose last one holds all items."""
    tool = {"type": "function", **FUNCTION}
    events = list(lines(http, "/v1/responses", {"input": "How many?", "tools": [tool]}))
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    response = events[-1]["response"]
    assert response["output"] == done

    def texts(kind: str, delta: str) -> str:
        told = "".join(event["delta"] for event in events if event["type"] == delta)
        assert told == "".join(part["text"] for item in done if item["type"] == kind for part in item["content"])
        return told

    return Told(
        texts("reasoning", "response.reasoning_text.delta"),
        texts("message", "response.output_text.delta"),
        [(item["name"], item["arguments"]) for item in done if item["type"] == "function_call"],
        response["status"],
    )


def ollama(http: httpx.Client) -> Told:
    """Ask for a chat of Ollama's as a stream, which has a call in one piece."""
    response = http.post("/api/chat", json={"messages": HELLO, "tools": [TOOL]})
    assert response.status_code == 200, response.text
    pieces = [json.loads(line) for line in response.text.splitlines()]
    parts = [piece["message"] for piece in pieces]
    calls = [call["function"] for part in parts for call in part.get("tool_calls", ())]
    return Told(
        "".join(part.get("thinking", "") for part in parts),
        "".join(part["content"] for part in parts),
        [(call["name"], json.dumps(call["arguments"])) for call in calls],
        pieces[-1]["done_reason"],
    )


def ask_all(http: httpx.Client) -> dict[str, Told]:
    """Ask in each interface."""
    return {
        "chat": chat(http),
        "streamed": streamed_chat(http),
        "messages": messages(http),
        "responses": responses(http),
        "ollama": ollama(http),
    }


def fake_options(name: str, text: str) -> dict[str, Any]:
    """Return the options of a fake engine that answers *text* in the template with this name."""
    words = len(re.findall(r"\s*\S+|\s+", text))  # its tokens
    return {"template": TEMPLATES.source(name), "text": text, "length": words, "tokens_per_s": 400}
