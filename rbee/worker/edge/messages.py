"""Anthropic's messages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from rbee.contracts.anthropic import Block, CountTokensRequest, MessagesRequest, MessageTool, MessageTurn
from rbee.contracts.errors import ErrorCode
from rbee.daemonkit.sse import encode
from rbee.errors import RbeeError
from rbee.worker.edge.answer import Outcome, Usage
from rbee.worker.edge.ask import Ask, sampling_of
from rbee.worker.edge.call_reader import CallBegun
from rbee.worker.edge.turns import not_text
from rbee.worker.generation import TokenScore
from rbee.worker.wish import Turn

_CHOICES: Final = {"auto": "auto", "any": "required", "none": "none"}
_UNSAID: Final = ("thinking", "redacted_thinking")  # what a model thought earlier is not told to it again


def ask_of(request: CountTokensRequest) -> Ask:
    """Translate a request. Raises RbeeError INVALID_REQUEST."""
    turns: list[Turn] = []
    if request.system:
        turns.append({"role": "system", "content": _text(request.system, "system")})
    for number, message in enumerate(request.messages):
        turns += _turns(message, f"messages.{number}")
    choice = request.tool_choice
    wanted = "auto" if choice is None else _CHOICES.get(choice.type, choice.name or "")
    if wanted == "":
        raise RbeeError(ErrorCode.INVALID_REQUEST, "tool_choice of type tool needs a name.", param="tool_choice.name")
    full = (
        request if isinstance(request, MessagesRequest) else MessagesRequest.model_construct(max_tokens=1, messages=[])
    )
    return Ask(
        tuple(turns),
        sampling_of(full, full.stop_sequences),
        limit=full.max_tokens,
        tools=tuple(_tool(tool, f"tools.{number}") for number, tool in enumerate(request.tools or ())),
        tool_choice=wanted,
        parallel=not (choice is not None and choice.disable_parallel_tool_use),
    )


def _tool(tool: MessageTool, where: str) -> dict[str, Any]:
    if tool.type not in (None, "custom"):
        raise RbeeError(
            ErrorCode.INVALID_REQUEST, f"{where}: there is no tool of type {tool.type!r} here.", param=where
        )
    function = {"name": tool.name, "description": tool.description, "parameters": tool.input_schema}
    return {"type": "function", "function": {key: value for key, value in function.items() if value is not None}}


def _turns(message: MessageTurn, where: str) -> list[Turn]:
    """Give the turns of a message: a result of a tool is a turn of its own in templates."""
    if isinstance(message.content, str):
        return [{"role": message.role, "content": message.content}]
    turns: list[Turn] = []
    said: list[str] = []
    calls: list[dict[str, Any]] = []
    for number, block in enumerate(message.content):
        if block.type == "tool_result":
            content = _text(block.content or "", f"{where}.content.{number}.content")
            turns.append({"role": "tool", "content": content, "tool_call_id": block.tool_use_id or ""})
        elif block.type == "tool_use":
            function = {"name": block.name or "", "arguments": block.input or {}}
            calls.append({"id": block.id or "", "type": "function", "function": function})
        elif block.type not in _UNSAID:
            said.append(_block(block, f"{where}.content.{number}"))
    if said or calls or not turns:
        turn: dict[str, Any] = {"role": message.role, "content": "\n".join(said)}
        turns.append({**turn, "tool_calls": calls} if calls else turn)
    return turns


def _text(content: str | list[Block], where: str) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(_block(block, f"{where}.{number}") for number, block in enumerate(content))


def _block(block: Block, where: str) -> str:
    if block.type != "text" or block.text is None:
        raise not_text(block.type, where)
    return block.text


class MessagesDialect:
    """Tell the answer as Anthropic's messages: blocks of text and of calls, one after the other."""

    def __init__(self, request_id: str, model: str) -> None:
        self._head = {"id": f"msg_{request_id}", "type": "message", "role": "assistant", "model": model}
        self._index = -1
        self._open: str | None = None
        self._outcome = Outcome()

    def opening(self, prompt_tokens: int) -> bytes:
        """Begin the message; how much of the prompt was cached is told at its end."""
        usage = {"input_tokens": prompt_tokens, "output_tokens": 0}
        message: dict[str, Any] = {
            **self._head,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
        }
        return _event({"type": "message_start", "message": message})

    def said(self, choice: int, text: str, scores: Sequence[TokenScore]) -> bytes:
        """Tell a piece of text."""
        del choice, scores
        begin = b"" if self._open == "text" else self._begun({"type": "text", "text": ""})
        delta = {"type": "text_delta", "text": text}
        return begin + _event({"type": "content_block_delta", "index": self._index, "delta": delta})

    def call_begun(self, choice: int, call: CallBegun) -> bytes:
        """Begin a block for the call."""
        del choice
        return self._begun({"type": "tool_use", "id": call.id, "name": call.name, "input": {}})

    def call_goes_on(self, choice: int, arguments: str) -> bytes:
        """Tell a piece of the arguments."""
        del choice
        delta = {"type": "input_json_delta", "partial_json": arguments}
        return _event({"type": "content_block_delta", "index": self._index, "delta": delta})

    def call_ended(self, choice: int) -> bytes:
        """End its block."""
        del choice
        return self._ended_block()

    def ended(self, choice: int, outcome: Outcome) -> bytes:
        """End the block that is open."""
        del choice
        self._outcome = outcome
        begin = self._begun({"type": "text", "text": ""}) if self._index < 0 else b""
        return begin + self._ended_block()

    def closing(self, usage: Usage) -> bytes:
        """Tell why it ended and what it took."""
        delta = {"stop_reason": _reason(self._outcome), "stop_sequence": self._outcome.stop}
        return _event({"type": "message_delta", "delta": delta, "usage": _usage(usage)}) + _event(
            {"type": "message_stop"}
        )

    def whole(self, outcomes: Sequence[Outcome], usage: Usage) -> bytes:
        """Give everything at once."""
        (outcome,) = outcomes
        content: list[dict[str, Any]] = []
        if outcome.text or not outcome.calls:
            content.append({"type": "text", "text": outcome.text})
        content += [
            {"type": "tool_use", "id": call.id, "name": call.name, "input": _input(call.arguments)}
            for call in outcome.calls
        ]
        end = {"stop_reason": _reason(outcome), "stop_sequence": outcome.stop}
        return json.dumps({**self._head, "content": content, **end, "usage": _usage(usage)}).encode()

    def _begun(self, block: dict[str, Any]) -> bytes:
        ended = self._ended_block()
        self._index += 1
        self._open = block["type"]
        return ended + _event({"type": "content_block_start", "index": self._index, "content_block": block})

    def _ended_block(self) -> bytes:
        if self._open is None:
            return b""
        self._open = None
        return _event({"type": "content_block_stop", "index": self._index})


def _event(body: dict[str, Any]) -> bytes:
    return encode(body, body["type"])


def _input(arguments: str) -> dict[str, Any]:
    """Give the arguments of a call as the object that they are; nothing of them where the call was cut off."""
    try:
        given = json.loads(arguments)
    except (ValueError, RecursionError):
        return {}
    return given if isinstance(given, dict) else {}


def _reason(outcome: Outcome) -> str:
    if outcome.stop is not None:
        return "stop_sequence"
    return {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}[outcome.reason]


def _usage(usage: Usage) -> dict[str, int]:
    """Give the counts; what was cached is not part of the input here."""
    return {
        "input_tokens": usage.prompt - usage.cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached,
        "output_tokens": usage.answer,
    }
