"""OpenAI's responses: the request."""

from __future__ import annotations

from typing import Any, Final

from rbee.contracts.errors import ErrorCode
from rbee.contracts.openai import ForeignChoice
from rbee.contracts.responses import (
    UNDERSTOOD,
    AllowedResponseTools,
    InputItem,
    InputPart,
    NamedResponseTool,
    ResponsesRequest,
    ResponseTool,
)
from rbee.errors import RbeeError
from rbee.worker.chat.conversation import TemplateMessage, ToolChoice
from rbee.worker.compat.chat import foreign_choice_error, selection
from rbee.worker.compat.chat_messages import ToolCalls, not_text_error, parse_arguments
from rbee.worker.compat.chat_params import ChatParams, ResponseFormat, Thinking, build_sampling, token_limit
from rbee.worker.compat.messages import refuse_thread
from rbee.worker.compat.offered_tools import offered_tools

_STORED: Final = ("previous_response_id", "conversation", "prompt", "background")
_LOGPROBS: Final = "message.output_text.logprobs"
_REFUSED: Final = ("input_image", "input_file", "input_audio", "image", "audio", "file")


def to_chat_params(request: ResponsesRequest) -> ChatParams:
    """Translate a request. Raises RbeeError INVALID_REQUEST."""
    refuse_thread(request.thread)
    for field in _STORED:
        if getattr(request, field):
            raise _stored_error(field, field)
    tools = request.tools or ()
    functions = {number: _function(tool) for number, tool in enumerate(tools) if tool.type == "function"}
    offered = offered_tools(functions, schema="parameters")
    ignored = [f"tools: {tool.type}" for tool in tools if tool.type != "function"]
    ignored += ["top_logprobs"] if request.top_logprobs else []
    ignored += [f"include: {_LOGPROBS}"] if _LOGPROBS in (request.include or ()) else []
    messages = _messages(request, ignored)
    choice, chosen = _tool_choice(request)
    wanted = None if request.text is None else request.text.format
    response_format = None
    if wanted is not None and wanted.type != "text":
        response_format = ResponseFormat(
            wanted.schema_ if wanted.type == "json_schema" else None, strict=bool(wanted.strict), param="text.format"
        )
    return ChatParams(
        tuple(messages),
        build_sampling(request, None),
        limit=token_limit(request.max_output_tokens),
        tools=offered.tools,
        schema_fields=offered.fields,
        tool_choice=choice,
        chosen=chosen,
        parallel=request.parallel_tool_calls is not False,
        response_format=response_format,
        thinking=Thinking(effort=None if request.reasoning is None else request.reasoning.effort),
        template_kwargs=request.chat_template_kwargs or {},
        ignored=tuple(ignored),
        param="input",
    )


def _tool_choice(request: ResponsesRequest) -> tuple[ToolChoice, tuple[str, ...] | None]:
    choice = request.tool_choice
    if isinstance(choice, ForeignChoice):
        raise foreign_choice_error(choice)
    if isinstance(choice, NamedResponseTool):
        return "required", (choice.name,)
    if isinstance(choice, AllowedResponseTools):
        return selection(choice)
    return choice or "auto", None


def _function(tool: ResponseTool) -> dict[str, Any]:
    return tool.model_dump(exclude={"type"}, exclude_none=True)


def _messages(request: ResponsesRequest, ignored: list[str]) -> list[TemplateMessage]:
    messages: list[dict[str, Any]] = []
    if request.instructions:
        messages.append({"role": "system", "content": request.instructions})
    if isinstance(request.input, str):
        return [*messages, {"role": "user", "content": request.input}]
    known = ToolCalls()
    for number, item in enumerate(request.input):
        _add(messages, item, f"input.{number}", known, ignored)
    if not messages:
        raise RbeeError(
            ErrorCode.INVALID_REQUEST, "input: there is no item in it that a model understands.", param="input"
        )
    return list(messages)


def _stored_error(what: str, param: str) -> RbeeError:
    return RbeeError(
        ErrorCode.INVALID_REQUEST,
        f"{what} is not supported: this server stores no responses.",
        hint="Send the whole conversation as 'input'.",
        param=param,
    )


def _add(messages: list[dict[str, Any]], item: InputItem, where: str, known: ToolCalls, ignored: list[str]) -> None:
    """Add an item; a thought, a text and calls that follow each other are one message of the assistant."""
    if item.type == "function_call":
        function = {"name": item.name or "", "arguments": parse_arguments(item.arguments or "")}
        call = {"id": item.call_id or "", "type": "function", "function": function}
        known.add(item.call_id)
        _assistants(messages).setdefault("tool_calls", []).append(call)
    elif item.type == "item_reference":
        raise _stored_error(f"{where}: item_reference", where)
    elif item.type not in UNDERSTOOD or (item.type == "function_call_output" and not known.have(item.call_id, where)):
        known.leave_out(item.call_id)
        ignored.append(f"{where}: {item.type}")
    elif item.type == "function_call_output":
        content = _text(item.output, f"{where}.output")
        messages.append({"role": "tool", "content": content, "tool_call_id": item.call_id or ""})
    elif item.type == "reasoning":
        parts = item.content if isinstance(item.content, list) and item.content else item.summary or []
        thought = "\n".join(part.text or "" for part in parts)
        if thought:
            messages.append({"role": "assistant", "content": "", "reasoning_content": thought})
    elif item.role is None:
        raise RbeeError(ErrorCode.INVALID_REQUEST, f"{where}: the item requires a role.", param=f"{where}.role")
    elif item.role == "assistant":
        message = _assistants(messages)
        if message["content"] or "tool_calls" in message:
            message = {"role": "assistant", "content": ""}
            messages.append(message)
        message["content"] = _text(item.content, f"{where}.content")
    else:
        messages.append({"role": item.role, "content": _text(item.content, f"{where}.content")})


def _assistants(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the last message, which is made one of the assistant if it is none."""
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": ""})
    return messages[-1]


def _text(content: str | list[InputPart] | None, where: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    for number, part in enumerate(content):
        if part.type in _REFUSED or (part.text is None and part.refusal is None):
            raise not_text_error(part.type, f"{where}.{number}")
    return "\n".join(part.text or part.refusal or "" for part in content)
