"""OpenAI's responses, in their basic form."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rbee.contracts.errors import ErrorCode
from rbee.contracts.responses import InputItem, InputPart, NamedResponseTool, ResponsesRequest, ResponseTool
from rbee.daemonkit.sse import encode
from rbee.errors import RbeeError
from rbee.worker.edge.answer import Outcome, Usage
from rbee.worker.edge.ask import Ask, Form, sampling_of
from rbee.worker.edge.call_reader import CallBegun
from rbee.worker.edge.tools import Call
from rbee.worker.edge.turns import arguments_of, not_text
from rbee.worker.generation import TokenScore
from rbee.worker.wish import Turn


def ask_of(request: ResponsesRequest) -> Ask:
    """Translate a request. Raises RbeeError INVALID_REQUEST."""
    for field in ("previous_response_id", "background"):
        if getattr(request, field):
            raise RbeeError(
                ErrorCode.INVALID_REQUEST,
                f"{field}: no responses are stored here.",
                hint="Send the whole conversation as 'input'.",
                param=field,
            )
    turns: list[Turn] = [{"role": "system", "content": request.instructions}] if request.instructions else []
    if isinstance(request.input, str):
        turns.append({"role": "user", "content": request.input})
    else:
        turns += [_turn(item, f"input.{number}") for number, item in enumerate(request.input)]
    choice = request.tool_choice
    wanted = None if request.text is None else request.text.format
    form = None
    if wanted is not None and wanted.type != "text":
        form = Form(wanted.schema_ if wanted.type == "json_schema" else None, strict=bool(wanted.strict))
    return Ask(
        tuple(turns),
        sampling_of(request, None),
        limit=request.max_output_tokens,
        tools=tuple(_tool(tool, f"tools.{number}") for number, tool in enumerate(request.tools or ())),
        tool_choice=choice.name if isinstance(choice, NamedResponseTool) else choice or "auto",
        parallel=request.parallel_tool_calls is not False,
        form=form,
    )


def _tool(tool: ResponseTool, where: str) -> dict[str, Any]:
    if tool.type != "function" or tool.name is None:
        raise RbeeError(
            ErrorCode.INVALID_REQUEST, f"{where}: there is no tool of type {tool.type!r} here.", param=where
        )
    return {"type": "function", "function": tool.model_dump(exclude={"type"}, exclude_none=True)}


def _turn(item: InputItem, where: str) -> Turn:
    if item.type == "function_call":
        arguments = arguments_of(item.arguments or "", f"{where}.arguments")
        function = {"name": item.name or "", "arguments": arguments}
        call = {"id": item.call_id or "", "type": "function", "function": function}
        return {"role": "assistant", "content": "", "tool_calls": [call]}
    if item.type == "function_call_output":
        return {"role": "tool", "content": _text(item.output, f"{where}.output"), "tool_call_id": item.call_id or ""}
    if item.type != "message" or item.role is None:
        raise RbeeError(ErrorCode.INVALID_REQUEST, f"{where}: an item needs a role.", param=f"{where}.role")
    role = "system" if item.role == "developer" else item.role
    return {"role": role, "content": _text(item.content, f"{where}.content")}


def _text(content: str | list[InputPart] | None, where: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    for number, part in enumerate(content):
        if part.type not in ("input_text", "output_text", "text") or part.text is None:
            raise not_text(part.type, f"{where}.{number}")
    return "\n".join(part.text or "" for part in content)


class ResponsesDialect:
    """Tell the answer as a response: items, each a message or a call, one after the other."""

    def __init__(self, request_id: str, created: int, request: ResponsesRequest) -> None:
        self._request_id = request_id
        self._created = created
        self._request = request
        self._number = -1
        self._items: list[dict[str, Any]] = []
        self._text = ""
        self._open = False
        self._call: CallBegun | None = None
        self._arguments: list[str] = []
        self._outcome = Outcome()

    def opening(self, prompt_tokens: int) -> bytes:
        """Begin the response."""
        del prompt_tokens
        response = self._response("in_progress", [], None)
        return self._event("response.created", response=response) + self._event(
            "response.in_progress", response=response
        )

    def said(self, choice: int, text: str, scores: Sequence[TokenScore]) -> bytes:
        """Tell a piece of text."""
        del choice, scores
        begin = b"" if self._open else self._message_begun()
        self._text += text
        return begin + self._event("response.output_text.delta", **self._place(), delta=text, logprobs=[])

    def call_begun(self, choice: int, call: CallBegun) -> bytes:
        """Begin an item for the call."""
        del choice
        ended = self._message_ended()
        self._call, self._arguments = call, []
        item = self._call_item(Call(call.id, call.name, ""), len(self._items), "in_progress")
        return ended + self._event("response.output_item.added", output_index=len(self._items), item=item)

    def call_goes_on(self, choice: int, arguments: str) -> bytes:
        """Tell a piece of the arguments."""
        del choice
        self._arguments.append(arguments)
        return self._event("response.function_call_arguments.delta", **self._call_place(), delta=arguments)

    def call_ended(self, choice: int) -> bytes:
        """Tell the arguments once more, and end the item."""
        del choice
        assert self._call is not None
        told = {"name": self._call.name, "arguments": "".join(self._arguments)}
        done = self._event("response.function_call_arguments.done", **self._call_place(), **told)
        return done + self._item_ended("completed")

    def ended(self, choice: int, outcome: Outcome) -> bytes:
        """End the item that is open; a call that was cut off is incomplete."""
        del choice
        self._outcome = outcome
        if self._call is not None:
            return self._item_ended("incomplete")
        begin = b"" if self._open or self._items else self._message_begun()
        return begin + self._message_ended()

    def closing(self, usage: Usage) -> bytes:
        """Give the whole response once more, with its counts."""
        status = _status(self._outcome)
        return self._event(f"response.{status}", response=self._response(status, self._items, usage))

    def whole(self, outcomes: Sequence[Outcome], usage: Usage) -> bytes:
        """Give everything at once."""
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

    def _message_begun(self) -> bytes:
        self._open = True
        at = len(self._items)
        item = {**self._message_item(at, "", "in_progress"), "content": []}
        return self._event("response.output_item.added", output_index=at, item=item) + self._event(
            "response.content_part.added", **self._place(), part=_part("")
        )

    def _message_ended(self) -> bytes:
        if not self._open:
            return b""
        at, text = len(self._items), self._text
        item = self._message_item(at, text, "completed")
        told = (
            self._event("response.output_text.done", **self._place(), text=text, logprobs=[])
            + self._event("response.content_part.done", **self._place(), part=_part(text))
            + self._event("response.output_item.done", output_index=at, item=item)
        )
        self._items.append(item)
        self._open, self._text = False, ""
        return told

    def _message_item(self, at: int, text: str, status: str) -> dict[str, Any]:
        head = {"type": "message", "id": f"msg_{self._request_id}_{at}", "status": status, "role": "assistant"}
        return {**head, "content": [_part(text)]}

    def _call_item(self, call: Call, at: int, status: str) -> dict[str, Any]:
        head = {"type": "function_call", "id": f"fc_{self._request_id}_{at}", "call_id": call.id}
        return {**head, "name": call.name, "arguments": call.arguments, "status": status}

    def _call_place(self) -> dict[str, Any]:
        at = len(self._items)
        return {"item_id": f"fc_{self._request_id}_{at}", "output_index": at}

    def _item_ended(self, status: str) -> bytes:
        """End the item of the call."""
        assert self._call is not None
        at, call = len(self._items), Call(self._call.id, self._call.name, "".join(self._arguments))
        item = self._call_item(call, at, status)
        self._items.append(item)
        self._call = None
        return self._event("response.output_item.done", output_index=at, item=item)

    def _response(self, status: str, items: list[dict[str, Any]], usage: Usage | None) -> dict[str, Any]:
        asked = self._request.model_dump(mode="json", by_alias=True, exclude_none=True)
        reason = {"reason": "max_output_tokens"} if status == "incomplete" else None
        return {
            "id": f"resp_{self._request_id}",
            "object": "response",
            "created_at": self._created,
            "status": status,
            "error": None,
            "incomplete_details": reason,
            "instructions": asked.get("instructions"),
            "max_output_tokens": asked.get("max_output_tokens"),
            "metadata": asked.get("metadata", {}),
            "model": asked.get("model") or "",
            "output": items,
            "parallel_tool_calls": asked.get("parallel_tool_calls", True),
            "previous_response_id": None,
            "store": False,
            "temperature": asked.get("temperature"),
            "text": asked.get("text", {"format": {"type": "text"}}),
            "tool_choice": asked.get("tool_choice", "auto"),
            "tools": asked.get("tools", []),
            "top_p": asked.get("top_p"),
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
