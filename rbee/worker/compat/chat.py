"""OpenAI's chat completions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from rbee.contracts.errors import ErrorCode
from rbee.contracts.openai import AllowedTools, ChatRequest, ForeignChoice, NamedTool, ToolSelection
from rbee.contracts.openai import ToolChoice as RequestedChoice
from rbee.daemonkit.dialects import Dialect, encode_failure
from rbee.daemonkit.sse import DONE
from rbee.errors import RbeeError
from rbee.worker.chat.conversation import ToolChoice
from rbee.worker.compat.answer import Outcome, Usage
from rbee.worker.compat.chat_messages import template_messages
from rbee.worker.compat.chat_params import (
    ChatParams,
    ResponseFormat,
    Thinking,
    build_sampling,
    normalize_seed,
    token_limit,
)
from rbee.worker.compat.message_pieces import Call, CallStart
from rbee.worker.compat.offered_tools import offered_tools
from rbee.worker.generation import TokenLogprob

_EVENT: Final = b"data: %b\n\n"
# What other servers or OpenAI heed, and would change the answer.
_UNHEEDED: Final = (
    *("audio", "modalities", "web_search_options", "n_predict", "min_tokens", "ignore_eos", "stop_token_ids"),
    *("guided_json", "guided_regex", "guided_choice", "guided_grammar", "structured_outputs", "repetition_penalty"),
    *("typical_p", "mirostat", "dry_multiplier", "xtc_probability", "samplers", "reasoning_format"),
)


def to_chat_params(request: ChatRequest) -> ChatParams:
    """Translate a request. Raises RbeeError INVALID_REQUEST."""
    if request.functions:
        raise RbeeError(
            ErrorCode.INVALID_REQUEST,
            "functions is not supported: it was replaced by tools.",
            hint='Send each function as an element of \'tools\': {"type": "function", "function": ...}.',
            param="functions",
        )
    messages, left_out = template_messages(request.messages)
    given = request.tools or ()
    functions = {
        number: tool.function.model_dump(exclude_none=True)
        for number, tool in enumerate(given)
        if tool.function is not None
    }
    offered = offered_tools(functions, schema="function.parameters")
    left_out += [f"tools: {tool.type}" for tool in given if tool.function is None]
    left_out += [name for name in _UNHEEDED if (request.model_extra or {}).get(name)]
    choice, chosen = tool_choice(request.tool_choice)
    budget = request.thinking_budget_tokens
    return ChatParams(
        messages,
        build_sampling(request, request.stop),
        limit=token_limit(
            request.max_tokens if request.max_completion_tokens is None else request.max_completion_tokens
        ),
        seed=normalize_seed(request.seed),
        choices=request.n or 1,
        tools=offered.tools,
        schema_fields=offered.fields,
        tool_choice=choice,
        chosen=chosen,
        parallel=request.parallel_tool_calls is not False,
        response_format=_response_format(request),
        grammar=request.grammar,
        logprobs=(request.top_logprobs or 0) if request.logprobs else None,
        bias=parse_logit_bias(request.logit_bias),
        new_turn=request.continue_final_message is False,
        thinking=Thinking(effort=request.reasoning_effort, budget=None if budget == -1 else budget),
        template_kwargs=request.chat_template_kwargs or {},
        ignored=tuple(left_out),
    )


def _response_format(request: ChatRequest) -> ResponseFormat | None:
    stated = request.response_format
    if stated is None or stated.type == "text":
        return None if request.json_schema is None else ResponseFormat(request.json_schema, param="json_schema")
    schema = stated.json_schema
    return ResponseFormat(schema.schema_, strict=bool(schema.strict)) if schema else ResponseFormat(stated.schema_)


def tool_choice(
    choice: RequestedChoice | None,
) -> tuple[ToolChoice, tuple[str, ...] | None]:
    """Return whether tools are to be called, and the names of those that may be: None for all of them.

    Raises RbeeError INVALID_REQUEST for a choice of something that is no function.
    """
    if isinstance(choice, ForeignChoice):
        raise foreign_choice_error(choice)
    if isinstance(choice, NamedTool):
        return "required", (choice.function.name,)
    if isinstance(choice, AllowedTools):
        return selection(choice.allowed_tools)
    return choice or "auto", None


def foreign_choice_error(choice: ForeignChoice) -> RbeeError:
    """Build the error for the choice of a tool that is no function, or names none."""
    return RbeeError(
        ErrorCode.INVALID_REQUEST,
        f"tool_choice: a choice of type {choice.type[:60]!r} names no function that could be called.",
        hint="Name a function, or leave the choice to the model: tools that are no functions are left out.",
        param="tool_choice",
    )


def selection(selected: ToolSelection) -> tuple[ToolChoice, tuple[str, ...]]:
    """Return a choice among some of the tools, as `tool_choice` does."""
    names = [tool.name or (tool.function.name if tool.function else "") for tool in selected.tools]
    return selected.mode, tuple(filter(None, names))


def parse_logit_bias(given: dict[str, float] | None) -> dict[int, float]:
    """Parse the token ids. Raises RbeeError INVALID_REQUEST for one that no model has."""
    bias = {int(token): value for token, value in (given or {}).items()}
    if any(token >= 2**31 for token in bias):
        raise RbeeError(ErrorCode.INVALID_REQUEST, f"logit_bias: there is no token {max(bias)}.", param="logit_bias")
    return bias


class ChatResponseWriter:
    """Write answers as OpenAI's chat completions.

    Args:
        model: the model's name in the request.
        created: seconds since the epoch.
        include_usage: whether a stream ends with a chunk of counts.
    """

    def __init__(self, request_id: str, model: str, created: int, *, choices: int, include_usage: bool) -> None:
        self._head = {"id": f"chatcmpl-{request_id}", "created": created, "model": model}
        self._choices = choices
        self._include_usage = include_usage
        self._calls = [0] * choices  # tool calls started, by choice
        # What is the same in every chunk of text is rendered once: this is the hot path of a stream.
        rest = ',"usage":null}' if include_usage else "}"
        head = json.dumps({**self._head, "object": "chat.completion.chunk"})[:-1].replace("%", "%%")
        self._text = (
            f'data: {head}, "choices":[{{"index":%d,"delta":{{"content":%b}},"logprobs":null,"finish_reason":null}}]'
            f"{rest}\n\n"
        ).encode()

    def start(self, prompt_tokens: int) -> bytes:
        """Write a chunk with the role for each choice."""
        del prompt_tokens
        first = {"role": "assistant", "content": "", "refusal": None}
        return b"".join(self._chunk(choice, first) for choice in range(self._choices))

    def thought(self, choice: int, text: str) -> bytes:
        """Write a part of the thought, in the field that other servers of open models use for it."""
        return self._chunk(choice, {"reasoning_content": text})

    def text(self, choice: int, text: str, logprobs: Sequence[TokenLogprob]) -> bytes:
        """Write a part of the text."""
        if logprobs:
            return self._chunk(choice, {"content": text}, logprobs=render_logprobs(logprobs))
        return self._text % (choice, json.dumps(text).encode())

    def tool_call_start(self, choice: int, call: CallStart) -> bytes:
        """Write the name of a tool call, and its number among the calls of the answer."""
        self._calls[choice] += 1
        return self._call_chunk(choice, render_tool_call(Call(call.id, call.name, "")))

    def tool_call_arguments(self, choice: int, arguments: str) -> bytes:
        """Write a part of the arguments."""
        return self._call_chunk(choice, {"function": {"arguments": arguments}})

    def tool_call_end(self, choice: int) -> bytes:
        """Write nothing: OpenAI's format marks no end of a call."""
        del choice
        return b""

    def finish(self, choice: int, outcome: Outcome) -> bytes:
        """Write why the answer ended."""
        return self._chunk(choice, {}, reason=outcome.reason)

    def end(self, usage: Usage) -> bytes:
        """Write the token counts if requested, and the end of the stream."""
        if not self._include_usage:
            return DONE
        body = {**self._head, "object": "chat.completion.chunk", "choices": [], "usage": render_usage(usage)}
        return _EVENT % json.dumps(body).encode() + DONE

    def fail(self, error: RbeeError, request_id: str | None) -> bytes:
        """Write the error."""
        return encode_failure(Dialect.OPENAI, error, request_id)

    def complete(self, outcomes: Sequence[Outcome], usage: Usage) -> bytes:
        """Write the complete response."""
        choices = []
        for number, outcome in enumerate(outcomes):
            content = outcome.text if outcome.text or not outcome.calls else None
            message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
            if outcome.thought:
                message["reasoning_content"] = outcome.thought
            if outcome.calls:
                message["tool_calls"] = [render_tool_call(call) for call in outcome.calls]
            logprobs = render_logprobs(outcome.logprobs) if outcome.logprobs else None
            choices.append({"index": number, "message": message, "logprobs": logprobs, "finish_reason": outcome.reason})
        body = {**self._head, "object": "chat.completion", "choices": choices, "usage": render_usage(usage)}
        return json.dumps(body).encode()

    def _call_chunk(self, choice: int, call: dict[str, Any]) -> bytes:
        return self._chunk(choice, {"tool_calls": [{"index": self._calls[choice] - 1, **call}]})

    def _chunk(
        self,
        choice: int,
        delta: dict[str, Any],
        *,
        reason: str | None = None,
        logprobs: dict[str, Any] | None = None,
    ) -> bytes:
        one = {"index": choice, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        body: dict[str, Any] = {**self._head, "object": "chat.completion.chunk", "choices": [one]}
        if self._include_usage:
            body["usage"] = None
        return _EVENT % json.dumps(body).encode()


def render_tool_call(call: Call) -> dict[str, Any]:
    """Return a tool call in OpenAI's format."""
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def render_usage(usage: Usage) -> dict[str, Any]:
    """Return the token counts in OpenAI's format."""
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.answer,
        "total_tokens": usage.prompt + usage.answer,
        "prompt_tokens_details": {"cached_tokens": usage.cached},
        "completion_tokens_details": {"reasoning_tokens": usage.thought},
    }


def render_logprobs(logprobs: Sequence[TokenLogprob]) -> dict[str, Any]:
    """Return the log probabilities in the format of chat completions."""
    return {"content": rendered_tokens(logprobs), "refusal": None}


def rendered_tokens(logprobs: Sequence[TokenLogprob]) -> list[dict[str, Any]]:
    """Return each token with its log probability and those of the likeliest in its place."""
    return [
        {
            **_render_token(entry.piece, entry.logprob),
            "top_logprobs": [_render_token(piece, logprob) for piece, logprob in entry.top],
        }
        for entry in logprobs
    ]


def _render_token(piece: bytes, logprob: float) -> dict[str, Any]:
    return {"token": piece.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(piece)}
