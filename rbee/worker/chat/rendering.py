"""Render conversations with a model's chat template, in the confined process: `handle` answers one request.

A template is foreign code. What it takes is found out once, by trial conversations; what it refuses is normalized.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.worker.chat.library import ChatLibraryError, NativeTemplate
from rbee.worker.chat.normalization import TemplateTraits, normalized

MAX_TEMPLATE_CHARS: Final = 200_000
MAX_RENDERED_CHARS: Final = 8_000_000  # four of the longest prompts
_FIRST: Final = "Sentinel alpha."
_SECOND: Final = "Sentinel beta."
_ASK: Final = {"role": "user", "content": "Sentinel gamma."}
_ANSWERED: Final = "Sentinel delta."
_ANSWER: Final = {"role": "assistant", "content": _ANSWERED}
_CALL_ID: Final = "call_0123456789abcdef01234567"
_FIT_ID: Final = "a1b2c3d4e"
_TOOL: Final[dict[str, Any]] = {
    "type": "function",
    "function": {
        "name": "sentinel_probe",
        "description": "Probes.",
        "parameters": {"type": "object", "properties": {"depth": {"type": "integer"}}},
    },
}


def handle(request: dict[str, Any]) -> Any:
    """Answer a request: what a template can do or, with messages, what it renders (`Chat.apply`).

    Raises RbeeError as `Chat` does.
    """
    chat = _opened(request["source"], request["begin"], request["end"])
    if "messages" not in request:
        return chat.description
    return chat.apply({name: value for name, value in request.items() if name not in ("source", "begin", "end")})


class Chat:
    """A model's chat template, opened. Raises RbeeError MODEL_INVALID where it does not parse.

    Args:
        source: the template.
        begin: text of the begin-of-text token.
        end: text of the end-of-text token.
    """

    def __init__(self, source: str, *, begin: str, end: str) -> None:
        if len(source) > MAX_TEMPLATE_CHARS:
            raise RbeeError(ErrorCode.MODEL_INVALID, f"The model's chat template has {len(source)} characters.")
        try:
            self._template = NativeTemplate(source, begin=begin, end=end)
        except ChatLibraryError as error:
            raise RbeeError(ErrorCode.MODEL_INVALID, f"The model's chat template does not parse: {error}.") from error
        called = self._keeps([_ASK, _call(_CALL_ID), _result(_CALL_ID), _ANSWER, _ASK], _FIRST, tools=[_TOOL])
        fitted = called or self._keeps([_ASK, _call(_FIT_ID), _result(_FIT_ID), _ANSWER, _ASK], _FIRST, tools=[_TOOL])
        self.traits = TemplateTraits(
            later_system=self._keeps([_system(_FIRST), _ASK, _ANSWER, _system(_SECOND), _ASK], _ANSWERED, _SECOND),
            several_system=self._keeps([_system(_FIRST), _system(_SECOND), _ASK], _FIRST, _SECOND),
            any_call_id=called or not fitted,
            tools=self._keeps([_ASK], _TOOL["function"]["name"], tools=[_TOOL]),
            tool_turns=fitted,
            thoughts=self._keeps([_ASK, {**_ANSWER, "reasoning_content": _FIRST}, _ASK], _ANSWERED),
        )

    @property
    def description(self) -> dict[str, Any]:
        """Return the template's capabilities, as llama.cpp names them, and whether it knows thoughts."""
        plain = self._rendered([_ASK])
        thinking = plain is not None and bool(plain["supports_thinking"])
        return {"capabilities": self._template.capabilities, "thinking": thinking}

    def apply(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return what `NativeTemplate.apply` does. Raises RbeeError INVALID_REQUEST where the template refuses it."""
        messages = normalized(request["messages"], request.get("tools") or (), self.traits)
        try:
            applied = self._template.apply({**request, "messages": messages})
        except ChatLibraryError as error:
            raise RbeeError(
                ErrorCode.INVALID_REQUEST,
                f"The model's chat template rejects these messages: {error}.",
                hint="Change the roles or their order, or send a raw prompt ('raw': true, --raw).",
                param="messages",
            ) from error
        if len(applied["prompt"]) > MAX_RENDERED_CHARS:
            raise RbeeError(
                ErrorCode.INVALID_REQUEST,
                f"The model's chat template gives more than {MAX_RENDERED_CHARS} characters.",
                param="messages",
            )
        return applied

    def _keeps(self, messages: list[dict[str, Any]], *texts: str, **more: Any) -> bool:
        """Return whether the template takes a conversation and writes these of its texts, in this order."""
        rendered = self._rendered(messages, **more)
        if rendered is None:
            return False
        places = [rendered["prompt"].find(text) for text in texts]
        return min(places) >= 0 and places == sorted(places)

    def _rendered(self, messages: list[dict[str, Any]], **more: Any) -> dict[str, Any] | None:
        try:
            return self._template.apply({"messages": messages, **more})
        except ChatLibraryError:
            return None


def _call(call_id: str) -> dict[str, Any]:
    call = {"id": call_id, "type": "function", "function": {"name": "sentinel_probe", "arguments": '{"depth": 1}'}}
    return {"role": "assistant", "content": "", "tool_calls": [call]}


def _result(call_id: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "name": "sentinel_probe", "content": _FIRST}


def _system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


@lru_cache(maxsize=2)
def _opened(source: str, begin: str, end: str) -> Chat:
    return Chat(source, begin=begin, end=end)
