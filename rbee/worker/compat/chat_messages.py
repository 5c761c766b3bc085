"""Convert the messages of OpenAI's chats into the form that chat templates take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from pydantic_core import from_json

from rbee.contracts.errors import ErrorCode
from rbee.contracts.openai import ChatMessage, ContentPart, FunctionCall
from rbee.errors import RbeeError
from rbee.surrogates import repaired_json
from rbee.worker.chat.conversation import TemplateMessage

_RESULTS: Final = ("tool", "function")


class ToolCalls:
    """The calls of a conversation, one of which each result of a tool is of."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._left_out: set[str] = set()

    def add(self, call_id: str | None) -> None:
        """Note a call; some clients give it no id."""
        self._ids.add(call_id or "")

    def leave_out(self, call_id: str | None) -> None:
        """Note a call that the model is not told of."""
        self._left_out |= {call_id} if call_id else set()

    def have(self, call_id: str | None, where: str) -> bool:
        """Return whether the model is told of the call whose result is at *where*, which has no id where it is None.

        Raises RbeeError INVALID_REQUEST where there is no such call before it.
        """
        if call_id in self._left_out:
            return False
        if call_id in self._ids or (self._ids and (not call_id or "" in self._ids)):
            return True
        named = f" with the id {call_id[:60]!r}" if call_id else ""
        raise RbeeError(
            ErrorCode.INVALID_REQUEST,
            f"{where}: the result of a tool, but no call{named} comes before it.",
            hint="Send the assistant's message with the call before the result.",
            param=where,
        )


def template_messages(messages: Sequence[ChatMessage]) -> tuple[tuple[TemplateMessage, ...], list[str]]:
    """Return the messages, and what of them is left out.

    Raises RbeeError INVALID_REQUEST for content that is not text, and for a result without a call.
    """
    calls, ignored = ToolCalls(), list[str]()
    converted = [
        _convert(message, f"messages.{number}", calls, ignored)
        for number, message in enumerate(messages)
        if message.role not in _RESULTS or _is_told(message, f"messages.{number}", calls, ignored)
    ]
    return tuple(converted), ignored


def _is_told(message: ChatMessage, where: str, calls: ToolCalls, ignored: list[str]) -> bool:
    told = calls.have(message.tool_call_id, where)
    ignored += [] if told else [f"{where}: {message.role}"]
    return told


def parse_arguments(given: str | dict[str, Any] | None) -> dict[str, Any]:
    """Return the arguments of an earlier call, as far as they came: `max_tokens` may have cut it off.

    Templates take an object; what is none, because a model wrote it so, becomes the value of one.
    """
    if isinstance(given, dict):
        return given
    text = given or ""
    body = text.encode("utf-8", "replace")
    try:
        arguments = from_json(repaired_json(body) or body, allow_partial="trailing-strings") if body.strip() else None
    except ValueError:
        arguments = text
    if arguments is None:
        return {}
    return arguments if isinstance(arguments, dict) else {"arguments": arguments}


def not_text_error(kind: str, param: str) -> RbeeError:
    """Build the error for content that a text model cannot read."""
    return RbeeError(
        ErrorCode.INVALID_REQUEST,
        f"{param}: content of type {kind[:60]!r} is not supported; this model reads text only.",
        hint="Send the content as text.",
        param=param,
    )


def _convert(message: ChatMessage, where: str, calls: ToolCalls, ignored: list[str]) -> TemplateMessage:
    converted: dict[str, Any] = {
        "role": message.role,
        "content": _text(message.content, f"{where}.content"),
    }
    thought = message.reasoning_content or message.reasoning or _thought(message.content)
    if thought and message.role == "assistant":
        converted["reasoning_content"] = thought
    elif thought:
        ignored.append(f"{where}: reasoning_content of {message.role}")
    if message.name is not None:
        converted["name"] = message.name
    if message.tool_call_id is not None:
        converted["tool_call_id"] = message.tool_call_id
    for number, call in enumerate(message.tool_calls or ()):
        if call.function is None:
            calls.leave_out(call.id)
            ignored.append(f"{where}.tool_calls.{number}: {call.type}")
        else:
            calls.add(call.id)
            converted.setdefault("tool_calls", []).append(_call(call.id, call.function))
    if message.function_call is not None and "tool_calls" not in converted:
        calls.add("")
        converted["tool_calls"] = [_call("", message.function_call)]
    if message.content is None and message.role != "assistant":
        raise RbeeError(ErrorCode.INVALID_REQUEST, f"{where}: the message has no content.", param=where)
    return converted


def _call(call_id: str | None, function: FunctionCall) -> dict[str, Any]:
    called = {"name": function.name, "arguments": parse_arguments(function.arguments)}
    return {"id": call_id or "", "type": "function", "function": called}


def _text(content: str | list[ContentPart] | None, where: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    texts = []
    for number, part in enumerate(content):
        if part.type == "thinking":
            continue
        if part.type not in ("text", "refusal"):
            raise not_text_error(part.type, f"{where}.{number}")
        texts.append(part.text or part.refusal or "")
    return "\n".join(texts)


def _thought(content: str | list[ContentPart] | None) -> str:
    parts = content if isinstance(content, list) else []
    return "\n".join(part.thinking or "" for part in parts if part.type == "thinking")
