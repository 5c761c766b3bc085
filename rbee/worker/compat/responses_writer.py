"""OpenAI's responses: the answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rbee.contracts.responses import ResponsesRequest
from rbee.daemonkit.dialects import Dialect, encode_failure
from rbee.daemonkit.sse import encode
from rbee.errors import RbeeError
from rbee.worker.compat.answer import Outcome, Usage
from rbee.worker.compat.message_pieces import Call, CallStart
from rbee.worker.generation import TokenLogprob


class ResponsesResponseWriter:
    """Write the answer as a response: items, each a thought, a message or a tool call, one after the other."""

    def __init__(self, request_id: str, model: str, created: int, request: ResponsesRequest) -> None:
        self._request_id = request_id
        self._model = model
        self._created = created
        self._request = request
        self._number = -1
        self._items: list[dict[str, Any]] = []
        self._text = ""
        self._open = False
        self._thought: list[str] | None = None
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

    def thought(self, choice: int, text: str) -> bytes:
        """Write a part of the thought."""
        del choice
        start = b""
        if self._thought is None:
            start = self._end_message() + self._start_thought()
        assert self._thought is not None
        self._thought.append(text)
        return start + self._event("response.reasoning_text.delta", **self._thought_place(), delta=text)

    def text(self, choice: int, text: str, logprobs: Sequence[TokenLogprob]) -> bytes:
        """Write a part of the text."""
        del choice, logprobs
        start = b"" if self._open else self._end_thought() + self._start_message()
        self._text += text
        return start + self._event("response.output_text.delta", **self._place(), delta=text, logprobs=[])

    def tool_call_start(self, choice: int, call: CallStart) -> bytes:
        """Write the start of an item for the tool call."""
        del choice
        end = self._end_thought() + self._end_message()
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
        end = self._end_thought()
        said = self._open or any(item["type"] != "reasoning" for item in self._items)
        return end + (b"" if said else self._start_message()) + self._end_message()

    def end(self, usage: Usage) -> bytes:
        """Write the complete response, with its token counts."""
        status = _status(self._outcome)
        return self._event(f"response.{status}", response=self._response(status, self._items, usage))

    def fail(self, error: RbeeError, request_id: str | None) -> bytes:
        """Write the failed response, and the error."""
        response = self._response("failed", self._items, None)
        return encode_failure(Dialect.RESPONSES, error, request_id, number=self._number + 1, response=response)

    def complete(self, outcomes: Sequence[Outcome], usage: Usage) -> bytes:
        """Write the complete response."""
        (outcome,) = outcomes
        self._outcome = outcome
        items = [self._thought_item(0, outcome.thought, "completed")] if outcome.thought else []
        if outcome.text or not outcome.calls:
            items.append(self._message_item(len(items), outcome.text, "completed"))
        items += [
            self._call_item(call, number, "completed" if call.whole else "incomplete")
            for number, call in enumerate(outcome.calls, start=len(items))
        ]
        return json.dumps(self._response(_status(outcome), items, usage)).encode()

    def _event(self, kind: str, /, **body: Any) -> bytes:
        self._number += 1
        return encode({"type": kind, "sequence_number": self._number, **body}, kind)

    def _place(self) -> dict[str, Any]:
        at = len(self._items)
        return {"item_id": f"msg_{self._request_id}_{at}", "output_index": at, "content_index": 0}

    def _thought_place(self) -> dict[str, Any]:
        at = len(self._items)
        return {"item_id": f"rs_{self._request_id}_{at}", "output_index": at, "content_index": 0}

    def _start_thought(self) -> bytes:
        self._thought = []
        at = len(self._items)
        item = {**self._thought_item(at, "", "in_progress"), "content": []}
        return self._event("response.output_item.added", output_index=at, item=item) + self._event(
            "response.content_part.added", **self._thought_place(), part=_thought_part("")
        )

    def _end_thought(self) -> bytes:
        if self._thought is None:
            return b""
        at, text = len(self._items), "".join(self._thought)
        item = self._thought_item(at, text, "completed")
        done = (
            self._event("response.reasoning_text.done", **self._thought_place(), text=text)
            + self._event("response.content_part.done", **self._thought_place(), part=_thought_part(text))
            + self._event("response.output_item.done", output_index=at, item=item)
        )
        self._items.append(item)
        self._thought = None
        return done

    def _thought_item(self, at: int, text: str, status: str) -> dict[str, Any]:
        head = {"type": "reasoning", "id": f"rs_{self._request_id}_{at}", "summary": [], "status": status}
        return {**head, "content": [_thought_part(text)]}

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
            "model": self._model,
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


def _thought_part(text: str) -> dict[str, Any]:
    return {"type": "reasoning_text", "text": text}


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _status(outcome: Outcome) -> str:
    return "incomplete" if outcome.reason == "length" else "completed"


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt,
        "input_tokens_details": {"cached_tokens": usage.cached},
        "output_tokens": usage.answer,
        "output_tokens_details": {"reasoning_tokens": usage.thought},
        "total_tokens": usage.prompt + usage.answer,
    }
