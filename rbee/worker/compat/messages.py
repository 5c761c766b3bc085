"""Anthropic's messages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from rbee.contracts.anthropic import Block, CountTokensRequest, MessagesRequest, MessageTool, MessageTurn
from rbee.contracts.errors import ErrorCode
from rbee.daemonkit.sse import encode
from rbee.errors import RbeeError
from rbee.worker.compat.answer import Outcome, Usage
from rbee.worker.compat.chat_messages import not_text_error
from rbee.worker.compat.chat_params import ChatParams, build_sampling, token_limit
from rbee.worker.compat.tool_call_parser import CallStart
from rbee.worker.generation import TokenLogprob
from rbee.worker.generation_request import TemplateMessage

_CHOICES: Final = {"auto": "auto", "any": "required", "none": "none"}
_SKIPPED: Final = ("thinking", "redacted_thinking")  # earlier reasoning is not repeated to the model


def to_chat_params(request: CountTokensRequest) -> ChatParams:
    """Translate a request. Raises RbeeError INVALID_REQUEST."""
    messages: list[TemplateMessage] = []
    if request.system:
        messages.append({"role": "system", "content": _text(request.system, "system")})
    for number, message in enumerate(request.messages):
        messages += _convert(message, f"messages.{number}")
    choice = request.tool_choice
    wanted = "auto" if choice is None else _CHOICES.get(choice.type, choice.name or "")
    if wanted == "":
        raise RbeeError(
            ErrorCode.INVALID_REQUEST, "tool_choice requires a name for type 'tool'.", param="tool_choice.name"
        )
    full = (
        request if isinstance(request, MessagesRequest) else MessagesRequest.model_construct(max_tokens=1, messages=[])
    )
    return ChatParams(
        tuple(messages),
        build_sampling(full, full.stop_sequences),
        limit=token_limit(full.max_tokens),
        tools=tuple(_tool(tool, f"tools.{number}") for number, tool in enumerate(request.tools or ())),
        tool_choice=wanted,
        parallel=not (choice is not None and choice.disable_parallel_tool_use),
    )


def _tool(tool: MessageTool, where: str) -> dict[str, Any]:
    if tool.type not in (None, "custom"):
        raise RbeeError(
            ErrorCode.INVALID_REQUEST, f"{where}: tools of type {tool.type!r} are not supported.", param=where
        )
    function = {"name": tool.name, "description": tool.description, "parameters": tool.input_schema}
    return {"type": "function", "function": {key: value for key, value in function.items() if value is not None}}


def _convert(message: MessageTurn, where: str) -> list[TemplateMessage]:
    """Convert a message for templates, where the result of a tool is a message of its own."""
    if isinstance(message.content, str):
        return [{"role": message.role, "content": message.content}]
    messages: list[TemplateMessage] = []
    texts: list[str] = []
    calls: list[dict[str, Any]] = []
    for number, block in enumerate(message.content):
        if block.type == "tool_result":
            content = _text(block.content or "", f"{where}.content.{number}.content")
            messages.append({"role": "tool", "content": content, "tool_call_id": block.tool_use_id or ""})
        elif block.type == "tool_use":
            function = {"name": block.name or "", "arguments": block.input or {}}
            calls.append({"id": block.id or "", "type": "function", "function": function})
        elif block.type not in _SKIPPED:
            texts.append(_block(block, f"{where}.content.{number}"))
    if texts or calls or not messages:
        converted: dict[str, Any] = {"role": message.role, "content": "\n".join(texts)}
        messages.append({**converted, "tool_calls": calls} if calls else converted)
    return messages


def _text(content: str | list[Block], where: str) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(_block(block, f"{where}.{number}") for number, block in enumerate(content))


def _block(block: Block, where: str) -> str:
    if block.type != "text" or block.text is None:
        raise not_text_error(block.type, where)
    return block.text


class MessagesResponseWriter:
    """Write the answer in Anthropic's format: blocks of text and of tool calls, one after the other."""

    def __init__(self, request_id: str, model: str) -> None:
        self._head = {"id": f"msg_{request_id}", "type": "message", "role": "assistant", "model": model}
        self._index = -1
        self._open: str | None = None
        self._outcome = Outcome()

    def start(self, prompt_tokens: int) -> bytes:
        """Write the start of the message; how much of the prompt was cached follows at its end."""
        usage = {"input_tokens": prompt_tokens, "output_tokens": 0}
        message: dict[str, Any] = {
            **self._head,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
        }
        return _event({"type": "message_start", "message": message})

    def text(self, choice: int, text: str, logprobs: Sequence[TokenLogprob]) -> bytes:
        """Write a part of the text."""
        del choice, logprobs
        start = b"" if self._open == "text" else self._start_block({"type": "text", "text": ""})
        delta = {"type": "text_delta", "text": text}
        return start + _event({"type": "content_block_delta", "index": self._index, "delta": delta})

    def tool_call_start(self, choice: int, call: CallStart) -> bytes:
        """Write the start of a block for the tool call."""
        del choice
        return self._start_block({"type": "tool_use", "id": call.id, "name": call.name, "input": {}})

    def tool_call_arguments(self, choice: int, arguments: str) -> bytes:
        """Write a part of the arguments."""
        del choice
        delta = {"type": "input_json_delta", "partial_json": arguments}
        return _event({"type": "content_block_delta", "index": self._index, "delta": delta})

    def tool_call_end(self, choice: int) -> bytes:
        """Write the end of its block."""
        del choice
        return self._end_block()

    def finish(self, choice: int, outcome: Outcome) -> bytes:
        """Write the end of the open block."""
        del choice
        self._outcome = outcome
        start = self._start_block({"type": "text", "text": ""}) if self._index < 0 else b""
        return start + self._end_block()

    def end(self, usage: Usage) -> bytes:
        """Write why the answer end, and its token counts."""
        delta = {"stop_reason": _reason(self._outcome), "stop_sequence": self._outcome.stop}
        return _event({"type": "message_delta", "delta": delta, "usage": _usage(usage)}) + _event(
            {"type": "message_stop"}
        )

    def complete(self, outcomes: Sequence[Outcome], usage: Usage) -> bytes:
        """Write the complete response."""
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

    def _start_block(self, block: dict[str, Any]) -> bytes:
        end = self._end_block()
        self._index += 1
        self._open = block["type"]
        return end + _event({"type": "content_block_start", "index": self._index, "content_block": block})

    def _end_block(self) -> bytes:
        if self._open is None:
            return b""
        self._open = None
        return _event({"type": "content_block_stop", "index": self._index})


def _event(body: dict[str, Any]) -> bytes:
    return encode(body, body["type"])


def _input(arguments: str) -> dict[str, Any]:
    """Return the arguments of a call as an object; an empty one where the call was cut off."""
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
    """Return the token counts; cached tokens are not part of the input here."""
    return {
        "input_tokens": usage.prompt - usage.cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached,
        "output_tokens": usage.answer,
    }
