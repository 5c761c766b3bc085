"""Anthropic's messages."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rbee.contracts.anthropic import Block, CountTokensRequest, MessagesRequest, MessageTool, MessageTurn
from rbee.contracts.errors import ErrorCode
from rbee.daemonkit.dialects import Dialect, encode_failure
from rbee.daemonkit.sse import encode
from rbee.errors import RbeeError
from rbee.worker.chat.conversation import TemplateMessage, ToolChoice
from rbee.worker.compat.answer import Outcome, Usage
from rbee.worker.compat.chat_messages import ToolCalls, not_text_error
from rbee.worker.compat.chat_params import ChatParams, ResponseFormat, Thinking, build_sampling, token_limit
from rbee.worker.compat.message_pieces import CallStart
from rbee.worker.compat.offered_tools import offered_tools
from rbee.worker.generation import TokenLogprob

_CHOICES: Final[Mapping[str, ToolChoice]] = {"auto": "auto", "any": "required", "tool": "required", "none": "none"}
_FUNCTIONS: Final = (None, "custom", "function")
_REFUSED: Final = ("image", "document", "audio", "video", "file")  # what the conversation is about, but no text
_UNHEEDED: Final = ("context_management", "mcp_servers", "container")
# Claude Code counts its requests at the end of this line: the rest of the prompt would never be found in the cache.
_BILLING: Final = re.compile(r"^(x-anthropic-billing-header:.*?)\s*\bcch=.*$", re.MULTILINE)
_SIGNATURE: Final = "unsigned"


def to_chat_params(request: CountTokensRequest) -> ChatParams:
    """Translate a request. Raises RbeeError INVALID_REQUEST."""
    refuse_thread(request.thread)
    ignored: list[str] = []
    messages: list[TemplateMessage] = []
    if request.system:
        system = _text(request.system, "system", ignored)
        messages.append({"role": "system", "content": _BILLING.sub(r"\1", system)})
    known = ToolCalls()
    for number, message in enumerate(request.messages):
        messages += _convert(message, f"messages.{number}", known, ignored)
    choice = request.tool_choice
    if choice is not None and choice.type == "tool" and not choice.name:
        raise RbeeError(
            ErrorCode.INVALID_REQUEST, "tool_choice requires a name for type 'tool'.", param="tool_choice.name"
        )
    tools = enumerate(request.tools or ())
    functions = {number: _function(tool) for number, tool in tools if tool.type in _FUNCTIONS}
    offered = offered_tools(functions, schema="input_schema")
    ignored += [f"tools: {tool.type}" for tool in request.tools or () if tool.type not in _FUNCTIONS]
    ignored += [name for name in _UNHEEDED if getattr(request, name)]
    full = (
        request if isinstance(request, MessagesRequest) else MessagesRequest.model_construct(max_tokens=1, messages=[])
    )
    config = request.output_config
    field = "output_format" if config is None or config.format is None else "output_config.format"
    wanted = request.output_format if config is None or config.format is None else config.format
    return ChatParams(
        tuple(messages),
        build_sampling(full, full.stop_sequences),
        limit=token_limit(full.max_tokens),
        tools=offered.tools,
        schema_fields=offered.fields,
        tool_choice="auto" if choice is None else _CHOICES[choice.type],
        chosen=(choice.name,) if choice is not None and choice.type == "tool" and choice.name else None,
        parallel=not (choice is not None and choice.disable_parallel_tool_use),
        response_format=None if wanted is None else ResponseFormat(wanted.schema_, param=field),
        thinking=_thinking(request),
        ignored=tuple(ignored),
    )


def refuse_thread(thread: object) -> None:
    """Raise RbeeError INVALID_REQUEST for a reference to a conversation that the server keeps.

    Clients that know of them look for this code and send the whole conversation.
    """
    if thread is not None:
        raise RbeeError(
            ErrorCode.INVALID_REQUEST,
            "thread is not supported: this server stores no conversations.",
            details={"error_code": "thread_unsupported_request"},
            hint="Send the whole conversation.",
            param="thread",
        )


def _thinking(request: CountTokensRequest) -> Thinking:
    effort = None if request.output_config is None else request.output_config.effort
    stated = request.thinking
    if stated is None:
        return Thinking(effort=effort)
    enabled = {"enabled": True, "disabled": False}.get(stated.type)
    return Thinking(enabled, effort, stated.budget_tokens if stated.type == "enabled" else None)


def _function(tool: MessageTool) -> dict[str, Any]:
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.input_schema,
        "strict": tool.strict,
    }
    return {key: value for key, value in function.items() if value is not None}


def _convert(message: MessageTurn, where: str, known: ToolCalls, ignored: list[str]) -> list[TemplateMessage]:
    """Convert a message for templates, where the result of a tool is a message of its own."""
    if isinstance(message.content, str):
        return [{"role": message.role, "content": message.content}]
    messages: list[TemplateMessage] = []
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[dict[str, Any]] = []
    for number, block in enumerate(message.content):
        if block.type == "tool_result":
            known.have(block.tool_use_id, f"{where}.content.{number}")
            content = _text(block.content or "", f"{where}.content.{number}.content", ignored)
            messages.append({"role": "tool", "content": content, "tool_call_id": block.tool_use_id or ""})
        elif block.type == "tool_use":
            known.add(block.id)
            function = {"name": block.name or "", "arguments": block.input or {}}
            calls.append({"id": block.id or "", "type": "function", "function": function})
        elif block.type == "thinking" and message.role != "assistant":
            ignored.append(f"{where}.content.{number}: thinking of {message.role}")
        elif block.type == "thinking":
            thoughts.append(block.thinking or "")
        elif block.type != "redacted_thinking":
            texts += _block(block, f"{where}.content.{number}", ignored)
    if texts or calls or thoughts or not messages:
        converted: dict[str, Any] = {"role": message.role, "content": "\n".join(texts)}
        if any(thoughts):
            converted["reasoning_content"] = "\n".join(thoughts)
        messages.append({**converted, "tool_calls": calls} if calls else converted)
    return messages


def _text(content: str | list[Block], where: str, ignored: list[str]) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(
        text for number, block in enumerate(content) for text in _block(block, f"{where}.{number}", ignored)
    )


def _block(block: Block, where: str, ignored: list[str]) -> list[str]:
    """Return the text of a block; one of a kind that no model understands is left out, and noted."""
    if block.type in _REFUSED or (block.type == "text" and block.text is None):
        raise not_text_error(block.type, where)
    if block.type != "text":
        ignored.append(f"{where}: {block.type}")
    return [block.text] if block.text is not None and block.type == "text" else []


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

    def thought(self, choice: int, text: str) -> bytes:
        """Write a part of the thought."""
        del choice
        start = b"" if self._open == "thinking" else self._start_block(_thinking_block("", ""))
        delta = {"type": "thinking_delta", "thinking": text}
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
        empty = self._index < 0 or (self._index == 0 and self._open == "thinking")
        start = self._start_block({"type": "text", "text": ""}) if empty else b""
        return start + self._end_block()

    def end(self, usage: Usage) -> bytes:
        """Write why the answer end, and its token counts."""
        delta = {"stop_reason": _reason(self._outcome), "stop_sequence": self._outcome.stop}
        return _event({"type": "message_delta", "delta": delta, "usage": _usage(usage)}) + _event(
            {"type": "message_stop"}
        )

    def fail(self, error: RbeeError, request_id: str | None) -> bytes:
        """Write the error."""
        return encode_failure(Dialect.ANTHROPIC, error, request_id)

    def complete(self, outcomes: Sequence[Outcome], usage: Usage) -> bytes:
        """Write the complete response."""
        (outcome,) = outcomes
        content = [_thinking_block(outcome.thought, _SIGNATURE)] if outcome.thought else []
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
        signed = b""
        if self._open == "thinking":
            delta = {"type": "signature_delta", "signature": _SIGNATURE}
            signed = _event({"type": "content_block_delta", "index": self._index, "delta": delta})
        self._open = None
        return signed + _event({"type": "content_block_stop", "index": self._index})


def _thinking_block(text: str, signature: str) -> dict[str, Any]:
    return {"type": "thinking", "thinking": text, "signature": signature}


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
