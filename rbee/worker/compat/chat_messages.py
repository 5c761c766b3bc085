"""Convert the messages of OpenAI's chats into the form that chat templates take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic_core import from_json

from rbee.contracts.errors import ErrorCode
from rbee.contracts.openai import ChatMessage, ContentPart, Tool
from rbee.errors import RbeeError
from rbee.surrogates import repaired_json
from rbee.worker.generation_request import TemplateMessage

_ROLES = {"developer": "system", "function": "tool"}


def template_messages(messages: Sequence[ChatMessage]) -> tuple[TemplateMessage, ...]:
    """Return the messages. Raises RbeeError INVALID_REQUEST for content that is not text."""
    return tuple(_convert(message, f"messages.{number}") for number, message in enumerate(messages))


def template_tool(tool: Tool) -> dict[str, Any]:
    """Return a tool as templates take it."""
    return {"type": "function", "function": tool.function.model_dump(exclude_none=True)}


def parse_arguments(text: str) -> dict[str, Any]:
    """Return the arguments of an earlier call, as far as they came: `max_tokens` may have cut it off.

    Templates take an object; what is none, because a model wrote it so, becomes the value of one.
    """
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


def _convert(message: ChatMessage, where: str) -> TemplateMessage:
    converted: dict[str, Any] = {
        "role": _ROLES.get(message.role, message.role),
        "content": _text(message.content, f"{where}.content"),
    }
    if message.name is not None:
        converted["name"] = message.name
    if message.tool_call_id is not None:
        converted["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        converted["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {
                    "name": call.function.name,
                    "arguments": parse_arguments(call.function.arguments),
                },
            }
            for call in message.tool_calls
        ]
    elif message.content is None and message.role != "assistant":
        raise RbeeError(ErrorCode.INVALID_REQUEST, f"{where}: the message has no content.", param=where)
    return converted


def _text(content: str | list[ContentPart] | None, where: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    texts = []
    for number, part in enumerate(content):
        if part.type not in ("text", "refusal"):
            raise not_text_error(part.type, f"{where}.{number}")
        texts.append(part.text or part.refusal or "")
    return "\n".join(texts)
