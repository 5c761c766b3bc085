"""Turn the messages of OpenAI's chats into what chat templates take."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rbee.contracts.errors import ErrorCode
from rbee.contracts.openai import ChatMessage, ContentPart, Tool
from rbee.errors import RbeeError
from rbee.worker.wish import Turn

_ROLES = {"developer": "system", "function": "tool"}


def turns_of(messages: Sequence[ChatMessage]) -> tuple[Turn, ...]:
    """Give the turns. Raises RbeeError INVALID_REQUEST for content that is no text."""
    return tuple(_turn(message, f"messages.{number}") for number, message in enumerate(messages))


def tool_of(tool: Tool) -> dict[str, Any]:
    """Give a tool as templates take it."""
    return {"type": "function", "function": tool.function.model_dump(exclude_none=True)}


def arguments_of(text: str, param: str) -> Any:
    """Read the arguments of an earlier call. Raises RbeeError INVALID_REQUEST if they are no JSON."""
    try:
        return json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise RbeeError(ErrorCode.INVALID_REQUEST, f"{param}: the arguments are not JSON.", param=param) from error


def not_text(kind: str, param: str) -> RbeeError:
    """Make the error for content that a text model cannot take."""
    return RbeeError(
        ErrorCode.INVALID_REQUEST,
        f"{param}: this model reads text only, and got {kind[:60]!r}.",
        hint="Send the content as text.",
        param=param,
    )


def _turn(message: ChatMessage, where: str) -> Turn:
    turn: dict[str, Any] = {
        "role": _ROLES.get(message.role, message.role),
        "content": _text(message.content, f"{where}.content"),
    }
    if message.name is not None:
        turn["name"] = message.name
    if message.tool_call_id is not None:
        turn["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        turn["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {
                    "name": call.function.name,
                    "arguments": arguments_of(call.function.arguments, f"{where}.tool_calls.{number}"),
                },
            }
            for number, call in enumerate(message.tool_calls)
        ]
    elif message.content is None:
        raise RbeeError(ErrorCode.INVALID_REQUEST, f"{where}: the message has no content.", param=where)
    return turn


def _text(content: str | list[ContentPart] | None, where: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    texts = []
    for number, part in enumerate(content):
        if part.type not in ("text", "refusal"):
            raise not_text(part.type, f"{where}.{number}")
        texts.append(part.text or part.refusal or "")
    return "\n".join(texts)
