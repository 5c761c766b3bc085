"""Convert the messages of OpenAI's chats into the form that chat templates take."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from pydantic_core import from_json

from rbee.contracts.errors import ErrorCode
from rbee.contracts.openai import ChatMessage, ContentPart, Tool
from rbee.errors import RbeeError
from rbee.surrogates import repaired_json
from rbee.worker.chat.conversation import TemplateMessage
from rbee.worker.text.json_schema import check_bounds

_NAME: Final = re.compile(r"[a-zA-Z0-9_.-]{1,128}")


def template_messages(messages: Sequence[ChatMessage]) -> tuple[TemplateMessage, ...]:
    """Return the messages. Raises RbeeError INVALID_REQUEST for content that is not text."""
    return tuple(_convert(message, f"messages.{number}") for number, message in enumerate(messages))


def template_tools(tools: Sequence[Tool]) -> tuple[tuple[dict[str, Any], ...], tuple[str, ...]]:
    """Return the functions as templates take them, and the names of the other tools, which are left out."""
    functions = [tool.function.model_dump(exclude_none=True) for tool in tools if tool.function is not None]
    return functions_as_tools(functions), tuple(f"tools: {tool.type}" for tool in tools if tool.function is None)


def functions_as_tools(functions: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    """Return tools as templates take them.

    Raises RbeeError INVALID_REQUEST where a name is given twice, or is none, or a schema is beyond the bounds.
    """
    seen: set[str] = set()
    for number, function in enumerate(functions):
        name = function.get("name") or ""
        if not _NAME.fullmatch(name):
            raise RbeeError(
                ErrorCode.INVALID_REQUEST,
                f"tools.{number}: {name[:60]!r} cannot be the name of a tool.",
                hint="A name has 1 to 128 letters, digits, dots, hyphens and underscores.",
                param=f"tools.{number}",
            )
        if name in seen:
            raise RbeeError(
                ErrorCode.INVALID_REQUEST,
                f"tools.{number}: there are two tools named {name!r}.",
                hint="Give each tool a name of its own.",
                param=f"tools.{number}",
            )
        seen.add(name)
        # The chat library and templates walk through it, however deep it is.
        check_bounds(function.get("parameters") or {}, f"tools.{number}.function.parameters")
    return tuple({"type": "function", "function": function} for function in functions)


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
        "role": message.role,
        "content": _text(message.content, f"{where}.content"),
    }
    thought = message.reasoning_content or message.reasoning or _thought(message.content)
    if thought and message.role == "assistant":
        converted["reasoning_content"] = thought
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
            if call.function is not None
        ]
    elif message.content is None and message.role != "assistant":
        raise RbeeError(ErrorCode.INVALID_REQUEST, f"{where}: the message has no content.", param=where)
    return converted


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
