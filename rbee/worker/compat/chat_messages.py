"""Convert the messages of OpenAI's chats into the form that chat templates take."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rbee.contracts.errors import ErrorCode
from rbee.contracts.openai import ChatMessage, ContentPart, Tool
from rbee.errors import RbeeError
from rbee.worker.generation_request import TemplateMessage

_ROLES = {"developer": "system", "function": "tool"}


def template_messages(messages: Sequence[ChatMessage]) -> tuple[TemplateMessage, ...]:
    """Return the messages. Raises RbeeError INVALID_REQUEST for content that is not text."""
    return tuple(_convert(message, f"messages.{number}") for number, message in enumerate(messages))


def template_tool(tool: Tool) -> dict[str, Any]:
    """Return a tool as templates take it."""
    return {"type": "function", "function": tool.function.model_dump(exclude_none=True)}


def parse_arguments(text: str, param: str) -> Any:
    """Parse the arguments of an earlier call. Raises RbeeError INVALID_REQUEST if they are not JSON."""
    try:
        return json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise RbeeError(ErrorCode.INVALID_REQUEST, f"{param}: the arguments are not JSON.", param=param) from error


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
                    "arguments": parse_arguments(call.function.arguments, f"{where}.tool_calls.{number}"),
                },
            }
            for number, call in enumerate(message.tool_calls)
        ]
    elif message.content is None:
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
