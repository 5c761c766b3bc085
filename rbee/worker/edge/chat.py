"""OpenAI's chat completions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from rbee.contracts.errors import ErrorCode
from rbee.contracts.openai import ChatRequest, NamedTool
from rbee.daemonkit.sse import DONE
from rbee.errors import RbeeError
from rbee.worker.edge.answer import Outcome, Usage
from rbee.worker.edge.ask import Ask, Form, sampling_of, seed_of
from rbee.worker.edge.call_reader import CallBegun
from rbee.worker.edge.tools import Call
from rbee.worker.edge.turns import tool_of, turns_of
from rbee.worker.generation import TokenScore

_EVENT: Final = b"data: %b\n\n"


def ask_of(request: ChatRequest) -> Ask:
    """Translate a request. Raises RbeeError INVALID_REQUEST."""
    choice = request.tool_choice
    form = None
    if request.response_format is not None and request.response_format.type != "text":
        schema = request.response_format.json_schema
        form = Form() if schema is None else Form(schema.schema_, strict=bool(schema.strict))
    return Ask(
        turns_of(request.messages),
        sampling_of(request, request.stop),
        limit=request.max_completion_tokens or request.max_tokens,
        seed=seed_of(request.seed),
        choices=request.n or 1,
        tools=tuple(tool_of(tool) for tool in request.tools or ()),
        tool_choice=choice.function.name if isinstance(choice, NamedTool) else choice or "auto",
        parallel=request.parallel_tool_calls is not False,
        form=form,
        grammar=request.grammar,
        scores=(request.top_logprobs or 0) if request.logprobs else None,
        bias=bias_of(request.logit_bias),
    )


def bias_of(given: dict[str, float] | None) -> dict[int, float]:
    """Read the ids of tokens. Raises RbeeError INVALID_REQUEST for one that no model has."""
    bias = {int(token): value for token, value in (given or {}).items()}
    if any(token >= 2**31 for token in bias):
        raise RbeeError(ErrorCode.INVALID_REQUEST, f"logit_bias: there is no token {max(bias)}.", param="logit_bias")
    return bias


class ChatDialect:
    """Tell the answers as OpenAI's chat completions.

    Args:
        model: the name that the client called the model by.
        created: seconds since the epoch.
        include_usage: whether a stream ends with a chunk of counts.
    """

    def __init__(self, request_id: str, model: str, created: int, *, choices: int, include_usage: bool) -> None:
        self._head = {"id": f"chatcmpl-{request_id}", "created": created, "model": model}
        self._choices = choices
        self._include_usage = include_usage
        self._calls = [0] * choices  # that have begun
        # What is the same in every chunk of text is written once: this is the hot path of a stream.
        rest = ',"usage":null}' if include_usage else "}"
        written = json.dumps({**self._head, "object": "chat.completion.chunk"})[:-1].replace("%", "%%")
        self._text = (
            f'data: {written}, "choices":[{{"index":%d,"delta":{{"content":%b}},"logprobs":null,"finish_reason":null}}]'
            f"{rest}\n\n"
        ).encode()

    def opening(self, prompt_tokens: int) -> bytes:
        """Tell who speaks."""
        del prompt_tokens
        first = {"role": "assistant", "content": "", "refusal": None}
        return b"".join(self._chunk(choice, first) for choice in range(self._choices))

    def said(self, choice: int, text: str, scores: Sequence[TokenScore]) -> bytes:
        """Tell a piece of text."""
        if scores:
            return self._chunk(choice, {"content": text}, logprobs=logprobs_of(scores))
        return self._text % (choice, json.dumps(text).encode())

    def call_begun(self, choice: int, call: CallBegun) -> bytes:
        """Tell the name of a call, and its number among the calls of the answer."""
        self._calls[choice] += 1
        return self._of_call(choice, call_body(Call(call.id, call.name, "")))

    def call_goes_on(self, choice: int, arguments: str) -> bytes:
        """Tell a piece of the arguments."""
        return self._of_call(choice, {"function": {"arguments": arguments}})

    def call_ended(self, choice: int) -> bytes:
        """Say nothing: what follows tells it."""
        del choice
        return b""

    def ended(self, choice: int, outcome: Outcome) -> bytes:
        """Tell why the answer is over."""
        return self._chunk(choice, {}, reason=outcome.reason)

    def closing(self, usage: Usage) -> bytes:
        """Give the counts if they were asked for, and end."""
        if not self._include_usage:
            return DONE
        body = {**self._head, "object": "chat.completion.chunk", "choices": [], "usage": usage_body(usage)}
        return _EVENT % json.dumps(body).encode() + DONE

    def whole(self, outcomes: Sequence[Outcome], usage: Usage) -> bytes:
        """Give everything at once."""
        choices = []
        for number, outcome in enumerate(outcomes):
            content = outcome.text if outcome.text or not outcome.calls else None
            message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
            if outcome.calls:
                message["tool_calls"] = [call_body(call) for call in outcome.calls]
            logprobs = logprobs_of(outcome.scores) if outcome.scores else None
            choices.append({"index": number, "message": message, "logprobs": logprobs, "finish_reason": outcome.reason})
        body = {**self._head, "object": "chat.completion", "choices": choices, "usage": usage_body(usage)}
        return json.dumps(body).encode()

    def _of_call(self, choice: int, told: dict[str, Any]) -> bytes:
        return self._chunk(choice, {"tool_calls": [{"index": self._calls[choice] - 1, **told}]})

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


def call_body(call: Call) -> dict[str, Any]:
    """Give a call in OpenAI's shape."""
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def usage_body(usage: Usage) -> dict[str, Any]:
    """Give the counts in OpenAI's shape."""
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.answer,
        "total_tokens": usage.prompt + usage.answer,
        "prompt_tokens_details": {"cached_tokens": usage.cached},
    }


def logprobs_of(scores: Sequence[TokenScore]) -> dict[str, Any]:
    """Give the scores in the shape of chats."""
    return {
        "content": [
            {
                **_score(score.piece, score.logprob),
                "top_logprobs": [_score(piece, logprob) for piece, logprob in score.top],
            }
            for score in scores
        ],
        "refusal": None,
    }


def _score(piece: bytes, logprob: float) -> dict[str, Any]:
    return {"token": piece.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(piece)}
