"""Bring a conversation into the form that a template takes, without losing a text. Pure.

Templates differ in what they refuse or drop: a second system turn, a role that they do not know, ids of calls that are
not theirs, tools. What a template can do is found out by trial (`rendering`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

Message = Mapping[str, Any]
_ID_CHARS: Final = 9  # what Mistral's templates demand: letters and digits, nine of them
_BETWEEN: Final = "\n\n"
GENERIC_TEMPLATE: Final = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' }}"
    "{% if message.reasoning_content %}{{ '<think>\n' + message.reasoning_content + '\n</think>\n\n' }}{% endif %}"
    "{{ message.content or '' }}"
    "{% for call in message.tool_calls or [] %}{{ '<tool_call>\n' }}"
    "{{ {'name': call.function.name, 'arguments': call.function.arguments} | tojson }}{{ '\n</tool_call>\n' }}"
    "{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% for tool in tools or [] %}{{ tool | tojson }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""ChatML with calls and thoughts: a model whose template has no tools, or that has none, is told its form of calls."""
_JSON_TYPES: Final = ("object", "array", "string", "number", "integer", "boolean")
_KNOWN_ROLES: Final = ("system", "user", "assistant", "tool")
_ROLES: Final = {"developer": "system", "function": "tool", "model": "assistant"}


@dataclass(frozen=True, slots=True)
class TemplateTraits:
    """What a template takes as it is; what it does not is normalized before it.

    Args:
        later_system: a system turn in mid-conversation.
        several_system: two system turns at the start.
        any_call_id: ids of tool calls that are not its own.
        tools: tools that are offered; else they are described in the system turn.
        calls: tools whose calls are in a form that can be read; else the form is `GENERIC_TEMPLATE`'s.
        tool_turns: calls of the assistant and their results; else they become texts.
        thoughts: thoughts of the assistant beside its answer; else they are left out.
    """

    later_system: bool = True
    several_system: bool = True
    any_call_id: bool = True
    tools: bool = True
    calls: bool = True
    tool_turns: bool = True
    thoughts: bool = True


def normalized(
    messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], traits: TemplateTraits
) -> list[dict[str, Any]]:
    """Return the messages as a template with *traits* takes them; all texts are kept, in their order."""
    known = [{**message, "role": _role(message)} for message in messages]
    if tools and not (traits.tools and traits.calls):
        known.insert(_head_length(known), {"role": "system", "content": _description(tools, form=not traits.calls)})
        known = _with_one_head(known)
    if not traits.tool_turns:
        known = [_without_tool_turn(message) for message in known]
    if not traits.thoughts:
        known = [{name: value for name, value in one.items() if name != "reasoning_content"} for one in known]
    if not traits.several_system:
        known = _with_one_head(known)
    if not traits.later_system:
        known = _without_later_system(known)
    return known if traits.any_call_id else [_with_fitting_ids(message) for message in known]


def with_plain_types(schema: Any) -> Any:
    """Return tools, or a schema, in which each type is one that JSON has: the first of a list that is not null."""
    if isinstance(schema, list):
        return [with_plain_types(inner) for inner in schema]
    if not isinstance(schema, Mapping):
        return schema
    plain = {name: with_plain_types(inner) for name, inner in schema.items()}
    if "function" in schema or "type" not in schema:
        return plain
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    known = [one for one in types if isinstance(one, str) and one in _JSON_TYPES]
    return plain | {"type": known[0] if known else "string"}


def with_bare_schemas(tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return tools whose schemas say only what the arguments are called and for, and which of them are texts.

    The chat library needs no more for the parser of their calls, and fails at much that a schema may have.
    """
    return [{**tool, "function": {**tool["function"], "parameters": _bare(tool["function"])}} for tool in tools]


def _bare(function: Mapping[str, Any]) -> dict[str, Any]:
    schema = function.get("parameters") or {}
    stated, needed = schema.get("properties"), schema.get("required")
    properties = {
        name: {"type": "string" if may_be_text(inner) else "object", **_described(inner)}
        for name, inner in (stated.items() if isinstance(stated, Mapping) else ())
    }
    required = [name for name in properties if name in needed] if isinstance(needed, list) else []
    return {"type": "object", "properties": properties, "required": required}


def _described(schema: Any) -> dict[str, Any]:
    described = isinstance(schema, Mapping) and isinstance(schema.get("description"), str)
    return {"description": schema["description"]} if described else {}


def may_be_text(schema: Any) -> bool:
    """Return whether a value of the schema may be a text, as the chat library decides it."""
    if not isinstance(schema, Mapping):
        return True
    stated = schema.get("type")
    if stated is not None:
        return "string" in (stated if isinstance(stated, list) else [stated])
    if "const" in schema or "enum" in schema:
        values = schema["enum"] if isinstance(schema.get("enum"), list) else [schema.get("const")]
        return any(isinstance(value, str) for value in values)
    return not any(key in schema for key in ("properties", "items", "minimum", "maximum"))


def _role(message: Message) -> str:
    role = _ROLES.get(message["role"], message["role"])
    return role if role in _KNOWN_ROLES else "user"


def _with_one_head(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Join the system turns at the start."""
    head = _head_length(messages)
    if head < 2:
        return [dict(message) for message in messages]
    joined = _BETWEEN.join(text for message in messages[:head] if (text := _text(message)))
    return [{"role": "system", "content": joined}, *map(dict, messages[head:])]


def _without_later_system(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Put system turns after the start before the text of the next user turn, or make them one."""
    head = _head_length(messages)
    result = [dict(message) for message in messages[:head]]
    held: list[str] = []
    for message in messages[head:]:
        if message["role"] == "system":
            held += [text] if (text := _text(message)) else []
        elif message["role"] == "user" and held:
            result.append({**message, "content": _BETWEEN.join([*held, _text(message)])})
            held = []
        else:
            result.append(dict(message))
    if held:
        result.append({"role": "user", "content": _BETWEEN.join(held)})
    return result


def _description(tools: Sequence[Mapping[str, Any]], *, form: bool) -> str:
    """Describe tools, and the form of a call, to a model whose template does not."""
    lines = [json.dumps(tool.get("function", tool), ensure_ascii=False) for tool in tools]
    lines.insert(0, "These functions can be called, each with arguments that fit its JSON schema:")
    if form:
        example = _call_text({"name": "NAME", "arguments": {"ARGUMENT": "VALUE"}})
        lines.append(f"To call one, answer in this form and with nothing else:\n{example}")
    return "\n".join(lines)


def _call_text(function: Mapping[str, Any]) -> str:
    """Return a call in the form of `GENERIC_TEMPLATE`."""
    call = {"name": function["name"], "arguments": function["arguments"]}
    return f"<tool_call>\n{json.dumps(call, ensure_ascii=False)}\n</tool_call>"


def _without_tool_turn(message: Message) -> dict[str, Any]:
    """Tell calls and results as texts, in the turns of the assistant and of the user."""
    if message["role"] == "tool":
        name = message.get("name")
        return {"role": "user", "content": f"{name}: {_text(message)}" if name else _text(message)}
    if not message.get("tool_calls"):
        return dict(message)
    calls = [_call_text(call["function"]) for call in message["tool_calls"]]
    rest = {name: value for name, value in message.items() if name != "tool_calls"}
    return {**rest, "content": "\n".join(text for text in (_text(message), *calls) if text)}


def _with_fitting_ids(message: Message) -> dict[str, Any]:
    fitted = dict(message)
    if message.get("tool_calls"):
        fitted["tool_calls"] = [{**call, "id": _fitting_id(call.get("id"))} for call in message["tool_calls"]]
    if message.get("tool_call_id"):
        fitted["tool_call_id"] = _fitting_id(message["tool_call_id"])
    return fitted


def _fitting_id(given: object) -> str:
    """Return an id of letters and digits that is the same for the same id, and that id itself if it is one."""
    text = str(given or "")
    if len(text) == _ID_CHARS and text.isascii() and text.isalnum():
        return text
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:_ID_CHARS]


def _head_length(messages: Sequence[Message]) -> int:
    """Return the number of system turns at the start."""
    return next((at for at, message in enumerate(messages) if message["role"] != "system"), len(messages))


def _text(message: Message) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "\n".join(str(part.get("text") or "") for part in content)
    return str(content or "")
