"""Render conversations with a model's chat template, in the confined process: `handle` answers one request.

A template is foreign code. What it takes is found out once, by trial conversations; what it refuses is normalized.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.worker.chat import library
from rbee.worker.chat.library import ChatLibraryError, NativeTemplate
from rbee.worker.chat.normalization import (
    GENERIC_TEMPLATE,
    Message,
    TemplateTraits,
    normalized,
    with_bare_schemas,
    with_plain_types,
)

MAX_TEMPLATE_CHARS: Final = 200_000
MAX_RENDERED_CHARS: Final = 8_000_000  # four of the longest prompts
_QUICK: Final[Mapping[str, Any]] = {"content_only": True}
_WITHOUT_CALLS: Final[Mapping[str, Any]] = {"tool_choice": "none"}
_REASON_CHARS: Final = 400
_WORD: Final = 1  # the type of a trigger that is a text (COMMON_GRAMMAR_TRIGGER_TYPE_WORD)
_FIRST: Final = "Sentinel alpha."
_SECOND: Final = "Sentinel beta."
_ASK: Final = {"role": "user", "content": "Sentinel gamma."}
_ANSWERED: Final = "Sentinel delta."
_ANSWER: Final = {"role": "assistant", "content": _ANSWERED}
_CALL_ID: Final = "call_0123456789abcdef01234567"
_FIT_ID: Final = "a1b2c3d4e"
_NAME_TAG: Final = '"tool-name"'  # by which a parser that reads calls is known
_TOOL: Final[dict[str, Any]] = {
    "type": "function",
    "function": {
        "name": "sentinel_probe",
        "description": "Probes.",
        "parameters": {"type": "object", "properties": {"depth": {"type": "integer"}}},
    },
}


def handle(request: dict[str, Any]) -> Any:
    """Answer a request about a template (`source`, `begin`, `end`).

    With `messages` it is what they render to (`Chat.render`), with `form` how answers are to be read (`Chat.form`);
    else it is what the template can do.

    Raises RbeeError as `Chat` does.
    """
    chat = _opened(request["source"], request["begin"], request["end"])
    if "messages" in request:
        return chat.render({name: value for name, value in request.items() if name not in ("source", "begin", "end")})
    return chat.form(request["form"]) if "form" in request else chat.description


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
            reason = _plain(str(error))
            raise RbeeError(
                ErrorCode.MODEL_INVALID,
                f"The model's chat template does not parse: {reason}.",
                details={"reason": reason},
            ) from error
        # To write the parser of many tools takes ten times as long as to render them: `render` does without.
        self._shortcut: Mapping[str, Any] = {}
        self._shortcut = next(filter(self._renders_alike, (_QUICK, _WITHOUT_CALLS)), {})
        called = self._keeps([_ASK, _call(_CALL_ID), _result(_CALL_ID), _ANSWER, _ASK], _FIRST, tools=[_TOOL])
        fitted = called or self._keeps([_ASK, _call(_FIT_ID), _result(_FIT_ID), _ANSWER, _ASK], _FIRST, tools=[_TOOL])
        demanded = self._rendered([_ASK], tools=[_TOOL], tool_choice="required", content_only=False)
        self.traits = TemplateTraits(
            later_system=self._keeps([_system(_FIRST), _ASK, _ANSWER, _system(_SECOND), _ASK], _ANSWERED, _SECOND),
            several_system=self._keeps([_system(_FIRST), _system(_SECOND), _ASK], _FIRST, _SECOND),
            any_call_id=called or not fitted,
            tools=self._keeps([_ASK], _TOOL["function"]["name"], tools=[_TOOL]),
            calls=demanded is not None and _NAME_TAG in demanded["parser"],
            tool_turns=fitted,
            thoughts=self._keeps([_ASK, {**_ANSWER, "reasoning_content": _FIRST}, _ASK], _ANSWERED),
        )

    @property
    def description(self) -> dict[str, Any]:
        """Return the template's capabilities, as llama.cpp names them, and whether it knows thoughts.

        `failure` is why it cannot render the simplest conversation, "" where it can.
        """
        try:
            thinking, failure = bool(_applied(self._template, {"messages": [_ASK]})["supports_thinking"]), ""
        except RbeeError as error:
            thinking, failure = False, error.message
        return {"capabilities": self._template.capabilities, "thinking": thinking, "failure": failure}

    def render(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the prompt of a request, and what goes with it.

        Args:
            request: as `NativeTemplate.apply` takes it, but that the arguments of calls may be objects.

        Returns: `prompt` and `generation_prompt`, its end, which begins the answer.

        Raises RbeeError INVALID_REQUEST where the template refuses the messages.
        """
        tools = request.get("tools") or []
        messages = _with_text_arguments(normalized(request["messages"], tools, self.traits))
        request = {**request, "messages": messages, "tools": tools if self.traits.calls else []}
        continues = request.get("continue_final_message")  # which the shortcuts do not know
        applied = _applied(self._template, request if continues else {**request, **self._shortcut})
        if len(applied["prompt"]) > MAX_RENDERED_CHARS:
            raise _refused(f"it gives more than {MAX_RENDERED_CHARS} characters")
        return {"prompt": applied["prompt"], "generation_prompt": applied["generation_prompt"]}

    def form(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return how answers to a request are to be read, whatever its messages are.

        Args:
            request: the options and tools as `render` takes them, and `tool_choice`.

        Returns: `format`, `parser` and `generation_prompt` for `NativeParser`; `triggers`, with which calls begin in an
        answer that may have some: none where the answer is not to be held to a form, null where they are no plain
        texts; `preserved_tokens`, the special tokens that are shown; `stops`, texts that end an answer;
        `thinking_start` and `thinking_ends`, by which a thought is known.

        Raises RbeeError INVALID_REQUEST where the template refuses the tools.
        """
        if self.traits.calls or not request["tools"]:
            applied = _applied(self._template, {**request, "messages": [_ASK]})
        else:
            applied = self._generic(request)
        triggers = applied["grammar_triggers"] if applied["grammar_lazy"] else []
        words = [one["value"] for one in triggers if one["type"] == _WORD]
        return {
            "format": applied["format"],
            "parser": applied["parser"],
            "generation_prompt": applied["generation_prompt"],
            "triggers": words if len(words) == len(triggers) else None,
            **{name: applied[name] for name in ("preserved_tokens", "stops", "thinking_start", "thinking_ends")},
        }

    def _generic(self, request: dict[str, Any]) -> dict[str, Any]:
        """Apply the generic template, whose answers begin as those of this one do: perhaps within a thought."""
        generic = NativeTemplate(GENERIC_TEMPLATE, begin="", end="")
        applied = _applied(generic, {**request, "messages": [_ASK]})
        own = _applied(self._template, {**request, "messages": [_ASK], "tools": [], **_WITHOUT_CALLS})
        start, ends = own["thinking_start"], own["thinking_ends"]
        thought = own["generation_prompt"].rpartition(start)[2] if start else ""
        begun = bool(start) and start in own["generation_prompt"] and not any(end in thought for end in ends)
        return applied | {
            "generation_prompt": applied["generation_prompt"] + (f"{start}\n" if begun else ""),
            "stops": own["stops"],
        }

    def _renders_alike(self, shortcut: Mapping[str, Any]) -> bool:
        """Return whether a conversation is rendered with a shortcut as it is without."""
        thought = {**_ANSWER, "reasoning_content": _FIRST}
        for messages in ([_system(_SECOND), _ASK], [_ASK, thought, _ASK], [_ASK, _call(_FIT_ID), _result(_FIT_ID)]):
            long = self._rendered(messages, tools=[_TOOL])
            short = self._rendered(messages, tools=[_TOOL], **shortcut)
            if long is not None and (short is None or long["prompt"] != short["prompt"]):
                return False
        return True

    def _keeps(self, messages: list[dict[str, Any]], *texts: str, **more: Any) -> bool:
        """Return whether the template takes a conversation and writes these of its texts, in this order."""
        rendered = self._rendered(messages, **more)
        if rendered is None:
            return False
        places = [rendered["prompt"].find(text) for text in texts]
        return min(places) >= 0 and places == sorted(places)

    def _rendered(self, messages: list[dict[str, Any]], **more: Any) -> dict[str, Any] | None:
        try:
            return _applied(self._template, {"messages": messages, **self._shortcut, **more})
        except RbeeError:
            return None


class PlainChat:
    """What renders conversations where the library is not there: who says what, a line each."""

    description: Final[dict[str, Any]] = {"capabilities": {}, "thinking": False, "failure": ""}

    def render(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the prompt as `Chat.render` does."""
        messages = [{**one, "content": one.get("content") or ""} for one in normalized(request["messages"], (), _PLAIN)]
        begun = f" {messages.pop()['content']}" if request.get("continue_final_message") else ""
        lines = [f"{message['role']}: {message['content']}\n" for message in messages]
        prompt = "".join([*lines, "assistant:", begun])
        return {"prompt": prompt, "generation_prompt": begun}

    def form(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return a form without a parser: all that is answered is content."""
        del request
        marks: dict[str, Any] = {"preserved_tokens": [], "stops": [], "thinking_start": "", "thinking_ends": []}
        return {"format": 0, "parser": "", "generation_prompt": "", "triggers": [], **marks}


_PLAIN: Final = TemplateTraits(tools=False, tool_turns=False, thoughts=False)


def _with_text_arguments(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Return messages as the library takes them: the arguments of calls are text."""
    return [
        {**message, "tool_calls": [_as_text(call) for call in message["tool_calls"]]}
        if message.get("tool_calls")
        else dict(message)
        for message in messages
    ]


def _as_text(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call["function"]
    if isinstance(function["arguments"], str):
        return dict(call)
    arguments = json.dumps(function["arguments"], ensure_ascii=False)
    return {**call, "function": {**function, "arguments": arguments}}


def _applied(template: NativeTemplate, request: dict[str, Any]) -> dict[str, Any]:
    """Apply a request, in simpler ways where the template or the library cannot do all of it.

    Some templates fail at types of a tool's schema that they do not know, and the library at much else in it; of some
    templates no parser can be made, so that all of an answer is content.
    """
    tools = request.get("tools") or []
    refused: ChatLibraryError | None = None
    for simpler in (
        request,
        {**request, "tools": with_plain_types(tools)},
        {**request, "tools": with_bare_schemas(tools)},
        {**request, **_QUICK},
    ):
        try:
            return template.apply(simpler)
        except ChatLibraryError as error:
            refused = refused or error
    raise _refused(_plain(str(refused)))


def _plain(message: str) -> str:
    """Return an error of the library in one line, without the rule that it draws below its first words."""
    lines = (line.strip() for line in message.splitlines())
    return " ".join(line for line in lines if line.strip("-"))[:_REASON_CHARS].rstrip(". ")


def _refused(reason: str) -> RbeeError:
    return RbeeError(
        ErrorCode.INVALID_REQUEST,
        f"The model's chat template rejects these messages: {reason}.",
        hint="Change the roles or their order, or send a raw prompt ('raw': true, --raw).",
        param="messages",
    )


def _call(call_id: str) -> dict[str, Any]:
    call = {"id": call_id, "type": "function", "function": {"name": "sentinel_probe", "arguments": '{"depth": 1}'}}
    return {"role": "assistant", "content": "", "tool_calls": [call]}


def _result(call_id: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "name": "sentinel_probe", "content": _FIRST}


def _system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


@lru_cache(maxsize=2)
def _opened(source: str, begin: str, end: str) -> Chat | PlainChat:
    return Chat(source, begin=begin, end=end) if library.is_there() else PlainChat()
