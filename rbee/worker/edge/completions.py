"""OpenAI's older completions: a prompt is continued as it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Final

from rbee.contracts.errors import ErrorCode
from rbee.contracts.openai import MAX_CHOICES, CompletionRequest
from rbee.daemonkit.sse import DONE
from rbee.errors import RbeeError
from rbee.worker.edge.answer import Outcome, Usage
from rbee.worker.edge.ask import sampling_of, seed_of, several
from rbee.worker.edge.call_reader import CallBegun
from rbee.worker.edge.chat import bias_of, usage_body
from rbee.worker.generation import TokenScore
from rbee.worker.wish import Wish

_EVENT: Final = b"data: %b\n\n"
DEFAULT_TOKENS: Final = 16  # what OpenAI's documentation says


def wishes_of(request: CompletionRequest) -> list[Wish]:
    """Translate a request: *n* generations for each of its prompts. Raises RbeeError INVALID_REQUEST."""
    if request.suffix:
        raise RbeeError(ErrorCode.INVALID_REQUEST, "This server cannot fill in before a suffix.", param="suffix")
    if request.best_of is not None and request.best_of != (request.n or 1):
        raise RbeeError(ErrorCode.INVALID_REQUEST, "best_of must be n: no answers are sorted out.", param="best_of")
    prompts = _prompts(request)
    count = request.n or 1
    if len(prompts) * count > MAX_CHOICES:
        raise RbeeError(
            ErrorCode.INVALID_REQUEST,
            f"{len(prompts)} prompts with {count} answers each are wished; {MAX_CHOICES} answers are the most.",
            param="prompt",
        )
    wishes = []
    for prompt in prompts:
        wish = Wish(
            sampling_of(request, request.stop),
            text=prompt if isinstance(prompt, str) else None,
            tokens=None if isinstance(prompt, str) else tuple(prompt),
            limit=request.max_tokens or DEFAULT_TOKENS,
            seed=seed_of(request.seed),
            scores=request.logprobs,
            bias=bias_of(request.logit_bias),
            grammar=request.grammar,
            param="prompt",
        )
        wishes += several(wish, count)
    return wishes


def echoes(request: CompletionRequest, text_of: Callable[[Sequence[int]], str]) -> list[str]:
    """Give what each answer begins with: its prompt, if that was asked for."""
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


class CompletionDialect:
    """Tell the answers as OpenAI's completions."""

    def __init__(self, request_id: str, model: str, created: int, *, choices: int, include_usage: bool) -> None:
        self._head = {"id": f"cmpl-{request_id}", "object": "text_completion", "created": created, "model": model}
        self._include_usage = include_usage
        self._at = [0] * choices

    def opening(self, prompt_tokens: int) -> bytes:
        """Say nothing yet."""
        del prompt_tokens
        return b""

    def said(self, choice: int, text: str, scores: Sequence[TokenScore]) -> bytes:
        """Tell a piece of text."""
        logprobs = logprobs_of(scores, self._at[choice]) if scores else None
        self._at[choice] += len(text)
        return self._chunk(choice, text, logprobs=logprobs)

    def call_begun(self, choice: int, call: CallBegun) -> bytes:
        """Never happens: completions know no tools."""
        del choice, call
        return b""

    def call_goes_on(self, choice: int, arguments: str) -> bytes:
        """Never happens."""
        del choice, arguments
        return b""

    def call_ended(self, choice: int) -> bytes:
        """Never happens."""
        del choice
        return b""

    def ended(self, choice: int, outcome: Outcome) -> bytes:
        """Tell why the answer is over."""
        return self._chunk(choice, "", reason=outcome.reason)

    def closing(self, usage: Usage) -> bytes:
        """Give the counts if they were asked for, and end."""
        if not self._include_usage:
            return DONE
        return _EVENT % json.dumps({**self._head, "choices": [], "usage": usage_body(usage)}).encode() + DONE

    def whole(self, outcomes: Sequence[Outcome], usage: Usage) -> bytes:
        """Give everything at once."""
        choices = [
            {
                "index": number,
                "text": outcome.text,
                "logprobs": logprobs_of(outcome.scores, _echoed(outcome)) if outcome.scores else None,
                "finish_reason": outcome.reason,
            }
            for number, outcome in enumerate(outcomes)
        ]
        return json.dumps({**self._head, "choices": choices, "usage": usage_body(usage)}).encode()

    def _chunk(
        self, choice: int, text: str, *, reason: str | None = None, logprobs: dict[str, Any] | None = None
    ) -> bytes:
        one = {"index": choice, "text": text, "logprobs": logprobs, "finish_reason": reason}
        body: dict[str, Any] = {**self._head, "choices": [one]}
        if self._include_usage:
            body["usage"] = None
        return _EVENT % json.dumps(body).encode()


def _echoed(outcome: Outcome) -> int:
    """Count the characters that came before the tokens with scores: an echoed prompt."""
    scored = b"".join(score.piece for score in outcome.scores).decode("utf-8", "replace")
    return max(0, len(outcome.text) - len(scored))


def logprobs_of(scores: Sequence[TokenScore], at: int) -> dict[str, Any]:
    """Give the scores in the shape of completions; *at* is where the text of the first begins."""
    tokens = [score.piece.decode("utf-8", "replace") for score in scores]
    offsets = [at + sum(map(len, tokens[:number])) for number in range(len(tokens))]
    return {
        "tokens": tokens,
        "token_logprobs": [score.logprob for score in scores],
        "top_logprobs": [
            {piece.decode("utf-8", "replace"): logprob for piece, logprob in score.top} or None for score in scores
        ],
        "text_offset": offsets,
    }
