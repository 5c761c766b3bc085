"""OpenAI's legacy completions: a prompt is continued without a chat template."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Final

from rbee.contracts.errors import ErrorCode
from rbee.contracts.openai import MAX_COMPLETIONS, CompletionRequest
from rbee.daemonkit.dialects import Dialect, encode_failure
from rbee.daemonkit.sse import DONE
from rbee.errors import RbeeError
from rbee.worker.compat.answer import Outcome, Usage
from rbee.worker.compat.chat import parse_logit_bias, render_usage
from rbee.worker.compat.chat_params import build_sampling, normalize_seed, replicate, token_limit
from rbee.worker.compat.message_pieces import CallStart
from rbee.worker.generation import TokenLogprob
from rbee.worker.generation_request import GenerationRequest
from rbee.worker.text.constraint import gbnf

_EVENT: Final = b"data: %b\n\n"
DEFAULT_TOKENS: Final = 16  # OpenAI's documented default


def generation_requests(request: CompletionRequest) -> list[GenerationRequest]:
    """Translate a request: *n* generations for each of its prompts. Raises RbeeError INVALID_REQUEST."""
    if request.suffix:
        raise RbeeError(
            ErrorCode.INVALID_REQUEST,
            "'suffix' is not supported: text is only continued.",
            param="suffix",
        )
    if request.best_of is not None and request.best_of != (request.n or 1):
        raise RbeeError(
            ErrorCode.INVALID_REQUEST,
            "best_of must equal n: all answers are returned.",
            param="best_of",
        )
    prompts = _prompts(request)
    count = request.n or 1
    if len(prompts) * count > MAX_COMPLETIONS:
        raise RbeeError(
            ErrorCode.INVALID_REQUEST,
            f"{len(prompts)} prompts with {count} answers each exceed the limit of {MAX_COMPLETIONS} answers.",
            param="prompt",
        )
    requests = []
    for prompt in prompts:
        generation = GenerationRequest(
            build_sampling(request, request.stop),
            text=prompt if isinstance(prompt, str) else None,
            tokens=None if isinstance(prompt, str) else tuple(prompt),
            limit=DEFAULT_TOKENS if request.max_tokens is None else token_limit(request.max_tokens),
            seed=normalize_seed(request.seed),
            logprobs=request.logprobs,
            bias=parse_logit_bias(request.logit_bias),
            constraint=None if request.grammar is None else gbnf(request.grammar),
            param="prompt",
        )
        requests += replicate(generation, count)
    return requests


def echoes(request: CompletionRequest, text_of: Callable[[Sequence[int]], str]) -> list[str]:
    """Return the text that each answer begins with: its prompt if `echo` is set, else nothing."""
    if not request.echo:
        return []
    texts = [prompt if isinstance(prompt, str) else text_of(prompt) for prompt in _prompts(request)]
    return [text for text in texts for _ in range(request.n or 1)]


def _prompts(request: CompletionRequest) -> list[str] | list[list[int]]:
    prompt = request.prompt
    if isinstance(prompt, str):
        return [prompt]
    if isinstance(prompt[0], int):
        return [prompt]
    return prompt


class CompletionResponseWriter:
    """Write answers as OpenAI's completions."""

    def __init__(self, request_id: str, model: str, created: int, *, choices: int, include_usage: bool) -> None:
        self._head = {"id": f"cmpl-{request_id}", "object": "text_completion", "created": created, "model": model}
        self._include_usage = include_usage
        self._offsets = [0] * choices

    def start(self, prompt_tokens: int) -> bytes:
        """Write nothing yet."""
        del prompt_tokens
        return b""

    def thought(self, choice: int, text: str) -> bytes:
        """Write nothing: completions have no thoughts."""
        del choice, text
        return b""

    def text(self, choice: int, text: str, logprobs: Sequence[TokenLogprob]) -> bytes:
        """Write a part of the text."""
        body = render_logprobs(logprobs, self._offsets[choice]) if logprobs else None
        self._offsets[choice] += len(text)
        return self._chunk(choice, text, logprobs=body)

    def tool_call_start(self, choice: int, call: CallStart) -> bytes:
        """Write nothing: completions have no tools."""
        del choice, call
        return b""

    def tool_call_arguments(self, choice: int, arguments: str) -> bytes:
        """Write nothing: completions have no tools."""
        del choice, arguments
        return b""

    def tool_call_end(self, choice: int) -> bytes:
        """Write nothing: completions have no tools."""
        del choice
        return b""

    def finish(self, choice: int, outcome: Outcome) -> bytes:
        """Write why the answer ended."""
        return self._chunk(choice, "", reason=outcome.reason)

    def end(self, usage: Usage) -> bytes:
        """Write the token counts if requested, and the end of the stream."""
        if not self._include_usage:
            return DONE
        return _EVENT % json.dumps({**self._head, "choices": [], "usage": render_usage(usage)}).encode() + DONE

    def fail(self, error: RbeeError, request_id: str | None) -> bytes:
        """Write the error."""
        return encode_failure(Dialect.OPENAI, error, request_id)

    def complete(self, outcomes: Sequence[Outcome], usage: Usage) -> bytes:
        """Write the complete response."""
        choices = [
            {
                "index": number,
                "text": outcome.text,
                "logprobs": render_logprobs(outcome.logprobs, _echo_length(outcome)) if outcome.logprobs else None,
                "finish_reason": outcome.reason,
            }
            for number, outcome in enumerate(outcomes)
        ]
        return json.dumps({**self._head, "choices": choices, "usage": render_usage(usage)}).encode()

    def _chunk(
        self, choice: int, text: str, *, reason: str | None = None, logprobs: dict[str, Any] | None = None
    ) -> bytes:
        one = {"index": choice, "text": text, "logprobs": logprobs, "finish_reason": reason}
        body: dict[str, Any] = {**self._head, "choices": [one]}
        if self._include_usage:
            body["usage"] = None
        return _EVENT % json.dumps(body).encode()


def _echo_length(outcome: Outcome) -> int:
    """Return the length of an echoed prompt: the characters before the tokens with log probabilities."""
    tokens = b"".join(entry.piece for entry in outcome.logprobs).decode("utf-8", "replace")
    return max(0, len(outcome.text) - len(tokens))


def render_logprobs(logprobs: Sequence[TokenLogprob], at: int) -> dict[str, Any]:
    """Return the log probabilities in the format of completions; *at* is the offset of the first token's text."""
    tokens = [entry.piece.decode("utf-8", "replace") for entry in logprobs]
    offsets = [at + sum(map(len, tokens[:number])) for number in range(len(tokens))]
    return {
        "tokens": tokens,
        "token_logprobs": [entry.logprob for entry in logprobs],
        "top_logprobs": [
            {piece.decode("utf-8", "replace"): logprob for piece, logprob in entry.top} or None for entry in logprobs
        ],
        "text_offset": offsets,
    }
