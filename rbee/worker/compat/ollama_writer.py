"""Write answers as Ollama's server does: objects of JSON, one a line in a stream."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

from rbee.contracts.ollama import timestamp
from rbee.daemonkit.dialects import Dialect, encode_failure
from rbee.errors import RbeeError
from rbee.worker.compat.answer import Outcome, Usage
from rbee.worker.compat.chat import rendered_tokens
from rbee.worker.compat.chat_messages import parse_arguments
from rbee.worker.compat.message_pieces import Call, CallStart
from rbee.worker.generation import TokenLogprob

Kind = Literal["chat", "generate"]
_NANOSECONDS: Final = 1_000_000_000


class OllamaResponseWriter:
    """Write the answer to a chat, or to a prompt.

    Args:
        model: the model's name in the request.
        clock: monotonic seconds.
    """

    def __init__(self, kind: Kind, model: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._kind = kind
        self._model = model
        self._clock = clock
        self._began = clock()
        self._reason = "stop"
        self._call: CallStart | None = None
        self._arguments: list[str] = []
        self._calls = 0

    def start(self, prompt_tokens: int) -> bytes:
        """Write nothing yet."""
        del prompt_tokens
        return b""

    def thought(self, choice: int, text: str) -> bytes:
        """Write a part of the thought."""
        del choice
        return self._piece("", thought=text)

    def text(self, choice: int, text: str, logprobs: Sequence[TokenLogprob]) -> bytes:
        """Write a part of the text."""
        del choice
        return self._piece(text, logprobs=logprobs)

    def tool_call_start(self, choice: int, call: CallStart) -> bytes:
        """Write nothing yet: a call comes in one piece."""
        del choice
        self._call, self._arguments = call, []
        return b""

    def tool_call_arguments(self, choice: int, arguments: str) -> bytes:
        """Write nothing yet: a call comes in one piece."""
        del choice
        self._arguments.append(arguments)
        return b""

    def tool_call_end(self, choice: int) -> bytes:
        """Write the call."""
        del choice
        if self._call is None:
            return b""
        call = Call(self._call.id, self._call.name, "".join(self._arguments))
        self._call = None
        self._calls += 1
        return self._piece("", calls=[_render_call(self._calls - 1, call)])

    def finish(self, choice: int, outcome: Outcome) -> bytes:
        """Write a call that was cut off, as far as it came."""
        self._reason = _reason(outcome)
        return self.tool_call_end(choice)

    def end(self, usage: Usage) -> bytes:
        """Write the last line."""
        # It begins with what the queen knows it by (`relay.stream`).
        return _line({"done": True, **self._head(), **self._body(""), **self._figures(usage)})

    def fail(self, error: RbeeError, request_id: str | None) -> bytes:
        """Write the error."""
        return encode_failure(Dialect.OLLAMA, error, request_id)

    def complete(self, outcomes: Sequence[Outcome], usage: Usage) -> bytes:
        """Write the complete response."""
        (outcome,) = outcomes
        self._reason = _reason(outcome)
        calls = [_render_call(number, call) for number, call in enumerate(outcome.calls)]
        body = self._body(outcome.text, thought=outcome.thought, calls=calls, logprobs=outcome.logprobs)
        return json.dumps({**self._head(), **body, "done": True, **self._figures(usage)}).encode()

    def _piece(self, text: str, **parts: Any) -> bytes:
        # It ends with what the queen counts (`relay.stream`).
        return _line({**self._head(), **self._body(text, **parts), "done": False})

    def _head(self) -> dict[str, Any]:
        return {"model": self._model, "created_at": timestamp(time.time())}

    def _body(
        self,
        text: str,
        *,
        thought: str = "",
        calls: Sequence[dict[str, Any]] = (),
        logprobs: Sequence[TokenLogprob] = (),
    ) -> dict[str, Any]:
        thinking = {"thinking": thought} if thought else {}
        called = {"tool_calls": calls} if calls else {}
        rest = {"logprobs": rendered_tokens(logprobs)} if logprobs else {}
        if self._kind == "generate":
            return {"response": text, **thinking, **called, **rest}
        return {"message": {"role": "assistant", "content": text, **thinking, **called}, **rest}

    def _figures(self, usage: Usage) -> dict[str, Any]:
        """Return why the answer ended, and what it took; durations in nanoseconds."""
        return {
            "done_reason": self._reason,
            "total_duration": _nanoseconds(self._clock() - self._began),
            "load_duration": 0,
            "prompt_eval_count": usage.prompt,
            "prompt_eval_duration": _nanoseconds(usage.prompt_s),
            "eval_count": usage.answer,
            "eval_duration": _nanoseconds(usage.answer_s),
        }


def embedded(model: str, vectors: Sequence[Sequence[float]], tokens: int, seconds: float) -> bytes:
    """Return the answer to `/api/embed`, which took so many *seconds*."""
    body = {
        "model": model,
        "embeddings": vectors,
        "total_duration": _nanoseconds(seconds),
        "load_duration": 0,
        "prompt_eval_count": tokens,
    }
    return json.dumps(body).encode()


def embedded_one(vectors: Sequence[Sequence[float]], tokens: int) -> bytes:
    """Return the answer to `/api/embeddings`."""
    del tokens
    return json.dumps({"embedding": vectors[0]}).encode()


def _line(body: dict[str, Any]) -> bytes:
    return json.dumps(body).encode() + b"\n"


def _reason(outcome: Outcome) -> str:
    return "length" if outcome.reason == "length" else "stop"


def _render_call(number: int, call: Call) -> dict[str, Any]:
    function = {"index": number, "name": call.name, "arguments": parse_arguments(call.arguments)}
    return {"id": call.id, "function": function}


def _nanoseconds(seconds: float) -> int:
    return round(max(0.0, seconds) * _NANOSECONDS)
