"""What one generation is wished to be, whichever interface asked for it: every request is translated into this."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rbee.contracts.errors import ErrorCode
from rbee.contracts.tasks import InferenceRequest, Sampling
from rbee.errors import RbeeError

Turn = Mapping[str, Any]
"""One turn of a conversation as chat templates take it: `role`, `content`, and what else a template knows."""


@dataclass(frozen=True, slots=True)
class Wish:
    """One generation.

    Exactly one of `turns` (for the chat template), `text` (taken as it is) and `tokens` is given.

    Args:
        query: what the text is held against, for a model that ranks.
        limit: new tokens at most; None goes on to the end of the context.
        scores: the log probability of each token is wished, with those of so many of the likeliest; None for none.
        bias: what is added to the logit of a token, by the token's id.
        grammar: GBNF that the text must obey.
        grammar_wished: the client asked for it; else the text goes without one that the engine cannot use.
        markers: texts of special tokens that are to be shown, because they begin a call of a tool.
        param: the request's field that the prompt came from, for messages.
    """

    sampling: Sampling
    turns: tuple[Turn, ...] | None = None
    text: str | None = None
    tokens: tuple[int, ...] | None = None
    query: str | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    limit: int | None = None
    seed: int | None = None
    scores: int | None = None
    bias: Mapping[int, float] = field(default_factory=dict)
    grammar: str | None = None
    grammar_wished: bool = True
    markers: tuple[str, ...] = ()
    param: str = "messages"

    @property
    def source(self) -> object:
        """Give what the prompt is made of: wishes that share it are turned into tokens once."""
        return self.turns if self.turns is not None else self.tokens if self.tokens is not None else self.text

    @property
    def size(self) -> int:
        """Give the characters of the prompt."""
        turns = self.turns or ()
        return len(self.text or "") + len(self.query or "") + sum(len(turn.get("content") or "") for turn in turns)


def wish_of(request: InferenceRequest) -> Wish:
    """Translate a request of our own interface. Raises RbeeError INVALID_REQUEST."""
    if request.raw:
        return Wish(request, text=_raw_text(request), limit=request.max_tokens, seed=request.seed, param="prompt")
    turns: list[Turn] = [{"role": message.role, "content": message.content} for message in request.messages or ()]
    if request.prompt is not None:
        turns = [{"role": "user", "content": request.prompt}]
    if request.system:
        turns.insert(0, {"role": "system", "content": request.system})
    param = "messages" if request.prompt is None else "prompt"
    return Wish(request, turns=tuple(turns), limit=request.max_tokens, seed=request.seed, param=param)


def _raw_text(request: InferenceRequest) -> str:
    """Give the prompt as it is."""
    if request.prompt is None:
        raise RbeeError(
            ErrorCode.INVALID_REQUEST,
            "Messages need the chat template; raw takes a prompt.",
            hint="Send 'prompt' with 'raw', or leave 'raw' out.",
            param="raw",
        )
    return f"{request.system}\n\n{request.prompt}" if request.system else request.prompt
