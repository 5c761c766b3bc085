"""Write the defaults of a preset into a request, each where the request's dialect has it. Pure.

What a client says itself stays. Its words on one matter count as a whole: who names a level of reasoning is not told
beside it whether to think, and who writes a system prompt gets no second one. Null says nothing.

Where a dialect has no place for something, it does not apply: raw prompts have neither a system prompt nor a template
that could be told to think.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from rbee.contracts.served import Preset

TASKS: Final = "/v2/tasks"
_SAMPLING: Final = ("temperature", "top_p", "top_k", "min_p", "repeat_penalty", "presence_penalty")
_SYSTEM_ROLES: Final = ("system", "developer")


class _Default(NamedTuple):
    """One field of a request: its name, or the way to it (`options.top_k`), and what a preset has for it.

    It is left as it is where the client has said this field, or one of *others*.
    """

    field: str
    value: Callable[[Preset], Any]
    others: tuple[str, ...] = ()


class _Dialect(NamedTuple):
    """Where a dialect has what a preset says.

    `turns` is the field with the messages, `system` the one with the system prompt; where both are the same, the
    system prompt is the first message.
    """

    defaults: tuple[_Default, ...]
    turns: str = ""
    system: str = ""


def _is(name: str) -> Callable[[Preset], Any]:
    return lambda preset: getattr(preset, name)


def _sampling(limit: str, *other_limits: str, within: str = "") -> tuple[_Default, ...]:
    """Return the defaults of sampling, and of the field *limit* for the most tokens, all *within* one object."""
    named = [_Default(within + name, _is(name)) for name in _SAMPLING]
    return (*named, _Default(within + limit, _is("max_tokens"), other_limits))


def _thinking(*defaults: tuple[str, Callable[[Preset], Any]], others: tuple[str, ...] = ()) -> tuple[_Default, ...]:
    """Return the defaults of the fields that say how to think; one that the client has said excludes all."""
    fields = tuple(field for field, _ in defaults)
    return tuple(_Default(field, value, (*fields, *others)) for field, value in defaults)


def _anthropic_thinking(preset: Preset) -> dict[str, str] | None:
    if preset.enable_thinking is None:
        return None
    return {"type": "enabled" if preset.enable_thinking else "disabled"}


def _ollama_think(preset: Preset) -> bool | str | None:
    effort = preset.reasoning_effort
    return preset.enable_thinking if effort is None or preset.enable_thinking is False else effort


_ENABLE: Final = "chat_template_kwargs.enable_thinking"
_KWARGS: Final = (_ENABLE, "chat_template_kwargs.reasoning_effort")
_OPENAI: Final = _thinking(
    (_ENABLE, _is("enable_thinking")),
    ("reasoning_effort", _is("reasoning_effort")),
    others=(*_KWARGS, "thinking_budget_tokens"),
)
_RESPONSES: Final = _thinking(
    (_ENABLE, _is("enable_thinking")), ("reasoning.effort", _is("reasoning_effort")), others=_KWARGS
)
_ANTHROPIC: Final = _thinking(("thinking", _anthropic_thinking), ("output_config.effort", _is("reasoning_effort")))
_OLLAMA: Final = (*_sampling("num_predict", within="options."), *_thinking(("think", _ollama_think)))
_OWN: Final = _thinking(("enable_thinking", _is("enable_thinking")), ("reasoning_effort", _is("reasoning_effort")))

_CHAT: Final = _Dialect((*_sampling("max_tokens", "max_completion_tokens"), *_OPENAI), "messages", "messages")
_MESSAGES: Final = _Dialect((*_sampling("max_tokens"), *_ANTHROPIC), "messages", "system")
_DIALECTS: Final = {
    "/v1/chat/completions": _CHAT,
    "/apply-template": _CHAT,
    "/v1/completions": _Dialect(_sampling("max_tokens")),
    "/v1/responses": _Dialect((*_sampling("max_output_tokens"), *_RESPONSES), "input", "instructions"),
    "/v1/messages": _MESSAGES,
    "/v1/messages/count_tokens": _MESSAGES,
    "/api/chat": _Dialect(_OLLAMA, "messages", "messages"),
    "/api/generate": _Dialect(_OLLAMA, system="system"),
    TASKS: _Dialect((*_sampling("max_tokens"), *_OWN), "messages", "system"),
}


def with_defaults(path: str, fields: Mapping[str, Any], preset: Preset) -> Mapping[str, Any]:
    """Return the fields of a request to *path* with the defaults of *preset*; the same object where nothing changes.

    Fields that are of another kind than the dialect has stay as they are, for whoever checks them.
    """
    dialect = _DIALECTS.get(path)
    if dialect is None:
        return fields
    changed = dict(fields)
    for default in dialect.defaults:
        value = default.value(preset)
        if value is not None and not any(_says(fields, said) for said in (default.field, *default.others)):
            _write(changed, default.field, value)
    if preset.system is not None and not fields.get("raw"):
        _write_system(changed, dialect, preset.system)
    return fields if changed == fields else changed


def _says(fields: Mapping[str, Any], way: str) -> bool:
    """Return whether the client has said a field, or something else where the object should be that holds it."""
    name, _, rest = way.partition(".")
    value = fields.get(name)
    if value is None or not rest:
        return value is not None
    return not isinstance(value, dict) or _says(value, rest)


def _write(fields: dict[str, Any], way: str, value: Any) -> None:
    """Write a field; objects on the way to it are copied."""
    name, _, rest = way.partition(".")
    if rest:
        within = dict(fields.get(name) or {})
        _write(within, rest, value)
        value = within
    fields[name] = value


def _write_system(fields: dict[str, Any], dialect: _Dialect, text: str) -> None:
    turns = fields.get(dialect.turns)
    listed = turns if isinstance(turns, list) else []
    if not dialect.system or any(_is_system(turn) for turn in listed):
        return
    if dialect.system != dialect.turns:
        if fields.get(dialect.system) is None:
            fields[dialect.system] = text
    elif listed:  # a chat without messages is refused, or only loads the model
        fields[dialect.turns] = [{"role": "system", "content": text}, *listed]


def _is_system(turn: object) -> bool:
    role = turn.get("role") if isinstance(turn, dict) else None
    return isinstance(role, str) and role.lower() in _SYSTEM_ROLES
