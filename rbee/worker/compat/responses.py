"""OpenAI's responses, in their basic form."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rbee.contracts.errors import ErrorCode
from rbee.contracts.responses import InputItem, InputPart, NamedResponseTool, ResponsesRequest, ResponseTool
from rbee.daemonkit.sse import encode
from rbee.errors import RbeeError
from rbee.worker.compat.answer import Outcome, Usage
from rbee.worker.compat.chat_messages import not_text_error, parse_arguments
from rbee.worker.compat.chat_params import ChatParams, ResponseFormat, build_sampling, token_limit
from rbee.worker.compat.tool_call_parser import CallStart
from rbee.worker.compat.tools import Call
from rbee.worker.generation import TokenLogprob
from rbee.worker.generation_request import TemplateMessage


def to_chat_params(request: ResponsesRequest) -> ChatParams:
    """Translate a request. Raises RbeeError INVALID_REQUEST."""
    for field in ("previous_response_id", "background"):
        if getattr(request, field):
            raise RbeeError(
                ErrorCode.INVALID_REQUEST,
                f"{field} is not supported: this server stores no responses.",
                hint="Send the whole conversation as 'input'.",
                param=field,
            )
    messages: list[TemplateMessage] = (
        [{"role": "system", "content": request.instructions}] if request.instructions else []
    )
    if isinstance(request.input, str):
        messages.append({"role": "user", "content": request.input})
    else:
        messages += [_convert(item, f"input.{number}") for number, item in enumerate(request.input)]
    choice = request.tool_choice
    wanted = None if request.text is None else request.text.format
    response_format = None
    if wanted is not None and wanted.type != "text":
        response_format = ResponseFormat(
            wanted.schema_ if wanted.type == "json_schema" else None, strict=bool(wanted.strict)
        )
    return ChatParams(
        tuple(messages),
        build_sampling(request, None),
        limit=token_limit(request.max_output_tokens),
        tools=tuple(_tool(tool, f"tools.{number}") for number, tool in enumerate(request.tools or ())),
        tool_choice=choice.name if isinstance(choice, NamedResponseTool) else choice or "auto",
        parallel=request.parallel_tool_calls is not False,
        response_format=response_format,
        param="input",
    )


def _tool(tool: ResponseTool, where: str) -> dict[str, Any]:
    if tool.type != "function" or tool.name is None:
        raise RbeeError(
            ErrorCode.INVALID_REQUEST, f"{where}: tools of type {tool.type!r} are not supported.", param=where
        )
    return {"type": "function", "function": tool.model_dump(exclude={"type"}, exclude_none=True)}


def _convert(item: InputItem, where: str) -> TemplateMessage:
    if item.type == "function_call":
        function = {"name": item.name or "", "arguments": parse_arguments(item.arguments or "")}
        call = {"id": item.call_id or "", "type": "function", "function": function}
        return {"role": "assistant", "content": "", "tool_calls": [call]}
    if item.type == "function_call_output":
        return {"role": "tool", "content": _text(item.output, f"{where}.output"), "tool_call_id": item.call_id or ""}
    if item.type != "message" or item.role is None:
        raise RbeeError(
            ErrorCode.INVALID_REQUEST,
            f"{where}: the item requires a role.",
            param=f"{where}.role",
        )
    role = "system" if item.role == "developer" else item.role
    return {"role": role, "content": _text(item.content, f"{where}.content")}


def _text(content: str | list[InputPart] | None, where: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    for number, part in enumerate(content):
        if part.type not in ("input_text", "output_text", "text") or part.text is None:
            raise not_text_error(part.type, f"{where}.{number}")
    return "\n".join(part.text or "" for part in content)


class ResponsesResponseWriter:
    """Write the answer as a response: items, each a message or a tool call, one after the other."""

    def __init__(self, request_id: str, created: int, request: ResponsesRequest) -> None:
        self._request_id = request_id
        self._created = created
        self._request = request
        self._number = -1
        self._items: list[dict[str, Any]] = []
        self._text = ""
        self._open = False
        self._call: CallStart | None = None
        self._arguments: list[str] = []
        self._outcome = Outcome()

    def start(self, prompt_tokens: int) -> bytes:
        """Write the start of the response."""
        del prompt_tokens
        response = self._response("in_progress", [], None)
        return self._event("response.created", response=response) + self._event(
            "response.in_progress", response=response
        )

    def text(self, choice: int, text: str, logprobs: Sequence[TokenLogprob]) -> bytes:
        """Write a part of the text."""
        del choice, logprobs
        start = b"" if self._open else self._start_message()
        self._text += text
        return start + self._event("response.output_text.delta", **self._place(), delta=text, logprobs=[])

    def tool_call_start(self, choice: int, call: CallStart) -> bytes:
        """Write the start of an item for the tool call."""
        del choice
        end = self._end_message()
        self._call, self._arguments = call, []
        item = self._call_item(Call(call.id, call.name, ""), len(self._items), "in_progress")
        return end + self._event("response.output_item.added", output_index=len(self._items), item=item)

    def tool_call_arguments(self, choice: int, arguments: str) -> bytes:
        """Write a part of the arguments."""
        del choice
        self._arguments.append(arguments)
        return self._event("response.function_call_arguments.delta", **self._call_place(), delta=arguments)

    def tool_call_end(self, choice: int) -> bytes:
        """Write the complete arguments, and the end of the item."""
        del choice
        assert self._call is not None
        call = {"name": self._call.name, "arguments": "".join(self._arguments)}
        done = self._event("response.function_call_arguments.done", **self._call_place(), **call)
        return done + self._end_item("completed")

    def finish(self, choice: int, outcome: Outcome) -> bytes:
        """Write the end of the open item; a tool call that was cut off is incomplete."""
        del choice
        self._outcome = outcome
        if self._call is not None:
            return self._end_item("incomplete")
        start = b"" if self._open or self._items else self._start_message()
        return start + self._end_message()

    def end(self, usage: Usage) -> bytes:
        """Write the complete response, with its token counts."""
        status = _status(self._outcome)
        return self._event(f"response.{status}", response=self._response(status, self._items, usage))

    def complete(self, outcomes: Sequence[Outcome], usage: Usage) -> bytes:
        """Write the complete response."""
        (outcome,) = outcomes
        self._outcome = outcome
        items = [self._message_item(0, outcome.text, "completed")] if outcome.text or not outcome.calls else []
        items += [
            self._call_item(call, len(items) + number, "completed" if call.whole else "incomplete")
            for number, call in enumerate(outcome.calls)
        ]
        return json.dumps(self._response(_status(outcome), items, usage)).encode()

    def _event(self, kind: str, /, **body: Any) -> bytes:
        self._number += 1
        return encode({"type": kind, "sequence_number": self._number, **body}, kind)

    def _place(self) -> dict[str, Any]:
        at = len(self._items)
        return {"item_id": f"msg_{self._request_id}_{at}", "output_index": at, "content_index": 0}

    def _start_message(self) -> bytes:
        self._open = True
        at = len(self._items)
        item = {**self._message_item(at, "", "in_progress"), "content": []}
        return self._event("response.output_item.added", output_index=at, item=item) + self._event(
            "response.content_part.added", **self._place(), part=_part("")
        )

    def _end_message(self) -> bytes:
        if not self._open:
            return b""
        at, text = len(self._items), self._text
        item = self._message_item(at, text, "completed")
        done = (
            self._event("response.output_text.done", **self._place(), text=text, logprobs=[])
            + self._event("response.content_part.done", **self._place(), part=_part(text))
            + self._event("response.output_item.done", output_index=at, item=item)
        )
        self._items.append(item)
        self._open, self._text = False, ""
        return done

    def _message_item(self, at: int, text: str, status: str) -> dict[str, Any]:
        head = {"type": "message", "id": f"msg_{self._request_id}_{at}", "status": status, "role": "assistant"}
        return {**head, "content": [_part(text)]}

    def _call_item(self, call: Call, at: int, status: str) -> dict[str, Any]:
        head = {"type": "function_call", "id": f"fc_{self._request_id}_{at}", "call_id": call.id}
        return {**head, "name": call.name, "arguments": call.arguments, "status": status}

    def _call_place(self) -> dict[str, Any]:
        at = len(self._items)
        return {"item_id": f"fc_{self._request_id}_{at}", "output_index": at}

    def _end_item(self, status: str) -> bytes:
        """Write the end of the tool call's item."""
        assert self._call is not None
        at, call = len(self._items), Call(self._call.id, self._call.name, "".join(self._arguments))
        item = self._call_item(call, at, status)
        self._items.append(item)
        self._call = None
        return self._event("response.output_item.done", output_index=at, item=item)

    def _response(self, status: str, items: list[dict[str, Any]], usage: Usage | None) -> dict[str, Any]:
        given = self._request.model_dump(mode="json", by_alias=True, exclude_none=True)
        reason = {"reason": "max_output_tokens"} if status == "incomplete" else None
        return {
            "id": f"resp_{self._request_id}",
            "object": "response",
            "created_at": self._created,
            "status": status,
            "error": None,
            "incomplete_details": reason,
            "instructions": given.get("instructions"),
            "max_output_tokens": given.get("max_output_tokens"),
            "metadata": given.get("metadata", {}),
            "model": given.get("model") or "",
            "output": items,
            "parallel_tool_calls": given.get("parallel_tool_calls", True),
            "previous_response_id": None,
            "store": False,
            "temperature": given.get("temperature"),
            "text": given.get("text", {"format": {"type": "text"}}),
            "tool_choice": given.get("tool_choice", "auto"),
            "tools": given.get("tools", []),
            "top_p": given.get("top_p"),
            "usage": None if usage is None else _usage(usage),
        }


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _status(outcome: Outcome) -> str:
    return "incomplete" if outcome.reason == "length" else "completed"


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt,
        "input_tokens_details": {"cached_tokens": usage.cached},
        "output_tokens": usage.answer,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt + usage.answer,
    }
