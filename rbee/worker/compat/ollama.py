"""Ollama's chats and prompts, as the parameters of a chat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rbee.contracts.errors import ErrorCode
from rbee.contracts.ollama import (
    GenerateRequest,
    ModelRequest,
    OllamaChatRequest,
    OllamaMessage,
    Options,
    TextRequest,
    Think,
)
from rbee.errors import RbeeError
from rbee.worker.chat.conversation import TemplateMessage
from rbee.worker.compat.chat_messages import ToolCalls, not_text_error
from rbee.worker.compat.chat_params import ChatParams, ResponseFormat, Thinking, build_sampling, normalize_seed
from rbee.worker.compat.offered_tools import offered_tools
from rbee.worker.generation_request import GenerationRequest


def to_chat_params(request: OllamaChatRequest) -> ChatParams:
    """Translate a chat. Raises RbeeError INVALID_REQUEST."""
    functions = [tool.function.model_dump(exclude_none=True) for tool in request.tools or ()]
    offered = offered_tools(dict(enumerate(functions)), schema="function.parameters")
    messages, left_out = _messages(request.messages or ())
    params = _params(request, messages)
    ignored = (*params.ignored, *left_out)
    return replace(params, tools=offered.tools, schema_fields=offered.fields, ignored=ignored)


def generate_params(request: GenerateRequest) -> ChatParams:
    """Translate a prompt, which is put into the model's chat template. Raises RbeeError INVALID_REQUEST."""
    _check_prompt(request)
    messages: list[TemplateMessage] = [{"role": "user", "content": request.prompt or ""}]
    if request.system:
        messages.insert(0, {"role": "system", "content": request.system})
    return replace(_params(request, tuple(messages)), param="prompt")


def raw_generation(request: GenerateRequest) -> GenerationRequest:
    """Translate a prompt that is given to the model as it is. Raises RbeeError INVALID_REQUEST."""
    _check_prompt(request)
    if request.system:
        raise RbeeError(
            ErrorCode.INVALID_REQUEST,
            "'raw' cannot be combined with 'system': a raw prompt has no turns.",
            hint="Write the system prompt into the prompt, or leave 'raw' out.",
            param="system",
        )
    params = _params(request, ())
    return GenerationRequest(
        params.sampling,
        text=request.prompt,
        limit=params.limit,
        seed=params.seed,
        logprobs=params.logprobs,
        constraint=params.answer,
        param="prompt",
    )


def ignored_fields(request: ModelRequest) -> tuple[str, ...]:
    """Return what a request has and its answer does not heed."""
    options = request.options or Options()
    names = ["keep_alive"] if request.keep_alive is not None else []
    names += [name for name in ("context", "truncate", "shift") if getattr(request, name, None)]
    return (*names, *(f"options.{name}" for name in options.model_extra or {}))


def _params(request: TextRequest, messages: tuple[TemplateMessage, ...]) -> ChatParams:
    """Return the parameters that chats and prompts have in common."""
    options = request.options or Options()
    limit = options.num_predict
    form = request.format
    return ChatParams(
        messages,
        build_sampling(options, options.stop),
        limit=None if limit is None or limit < 0 else limit,
        seed=normalize_seed(options.seed),
        response_format=ResponseFormat(form if isinstance(form, dict) else None, param="format") if form else None,
        logprobs=(request.top_logprobs or 0) if request.logprobs else None,
        thinking=_thinking(request.think),
        ignored=ignored_fields(request),
    )


def _thinking(think: Think | None) -> Thinking:
    if isinstance(think, str):
        return Thinking(enabled=True, effort=think)
    return Thinking(enabled=think)


def _check_prompt(request: GenerateRequest) -> None:
    if request.images:
        raise not_text_error("image", "images")
    if request.suffix:
        raise RbeeError(ErrorCode.INVALID_REQUEST, "'suffix' is not supported: text is only continued.", param="suffix")
    if request.template:
        raise RbeeError(
            ErrorCode.INVALID_REQUEST,
            "'template' is not supported: prompts are put into the model's own chat template.",
            hint="Send the prompt as the model is to read it, with 'raw': true.",
            param="template",
        )


def _messages(messages: Sequence[OllamaMessage]) -> tuple[tuple[TemplateMessage, ...], list[str]]:
    """Convert the messages; a result without an id is that of the first call which has none yet.

    Also returns what of them is left out.
    """
    converted, ignored, known = list[TemplateMessage](), list[str](), ToolCalls()
    waiting: list[tuple[str, str]] = []
    for number, message in enumerate(messages):
        if message.images:
            raise not_text_error("image", f"messages.{number}.images")
        one: dict[str, Any] = {"role": message.role, "content": message.content or ""}
        if message.thinking and message.role == "assistant":
            one["reasoning_content"] = message.thinking
        elif message.thinking:
            ignored.append(f"messages.{number}: thinking of {message.role}")
        if message.tool_calls:
            calls = [(call.id or f"call_{number}_{at}", call.function) for at, call in enumerate(message.tool_calls)]
            waiting += [(call_id, function.name) for call_id, function in calls]
            known.add(None)
            one["tool_calls"] = [
                {"id": call_id, "type": "function", "function": function.model_dump()} for call_id, function in calls
            ]
        if message.role == "tool":
            known.have(message.tool_call_id, f"messages.{number}")
            one |= _answered(message, waiting)
        converted.append(one)
    return tuple(converted), ignored


def _answered(message: OllamaMessage, waiting: list[tuple[str, str]]) -> dict[str, str]:
    """Return the id and the name of the call that a tool answers, and take it from those that wait."""
    name = message.tool_name
    found = next(
        (call for call in waiting if (message.tool_call_id in (None, call[0])) and (name is None or name == call[1])),
        None,
    )
    if found is not None:
        waiting.remove(found)
    call_id, called = found or (message.tool_call_id, name)
    fields = {"tool_call_id": message.tool_call_id or call_id, "name": name or called}
    return {key: value for key, value in fields.items() if value}
