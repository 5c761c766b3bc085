"""The one form into which the worker translates every request, whichever interface it came by."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

from rbee.contracts.errors import ErrorCode
from rbee.contracts.tasks import InferenceRequest, Sampling
from rbee.errors import RbeeError
from rbee.worker.chat.conversation import Conversation, TemplateMessage
from rbee.worker.chat.plain_text import choose_guard
from rbee.worker.engine.protocol import Engine, Grammar
from rbee.worker.generation import Generation
from rbee.worker.scheduling.thought import Thought, ThoughtMarks
from rbee.worker.text.constraint import Constraint
from rbee.worker.text.sampling import MAX_SEED, build_chain


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One generation.

    Exactly one of `conversation` (for the chat template), `text` (taken as it is) and `tokens` is set. Names of control
    tokens in `text` count as such, because who writes a raw prompt writes its marks too, unless it is `plain`.

    Args:
        query: what a reranking model compares the text with.
        limit: maximum of new tokens; None goes on to the end of the context.
        logprobs: return the log probability of each token, with those of so many of the likeliest; None for none.
        bias: what is added to the logit of a token, by the token's id.
        constraint: what the text must match.
        markers: names of special tokens that are shown, because they tell the parts of an answer apart.
        thought: how a thought of the answer is known, and how long it may be.
        param: the request's field that the prompt came from, for error messages.
    """

    sampling: Sampling
    conversation: Conversation | None = None
    text: str | None = None
    tokens: tuple[int, ...] | None = None
    plain: bool = False
    query: str | None = None
    limit: int | None = None
    seed: int | None = None
    logprobs: int | None = None
    bias: Mapping[int, float] = field(default_factory=dict)
    constraint: Constraint | None = None
    markers: tuple[str, ...] = ()
    thought: ThoughtMarks | None = None
    param: str = "messages"

    @property
    def source(self) -> object:
        """Return what the prompt is made of: requests that share it are tokenized once."""
        return self.conversation or (self.tokens if self.tokens is not None else self.text)

    @property
    def size(self) -> int:
        """Return the number of characters in a prompt that is no conversation."""
        return len(self.text or "") + len(self.query or "")


def from_inference_request(request: InferenceRequest) -> GenerationRequest:
    """Translate a request to `/v1/inference`. Raises RbeeError INVALID_REQUEST."""
    limit, seed = request.max_tokens, request.seed
    if request.raw:
        return GenerationRequest(request, text=_raw_text(request), limit=limit, seed=seed, param="prompt")
    if request.prompt is not None:
        messages: list[TemplateMessage] = [{"role": "user", "content": request.prompt}]
    else:
        messages = [{"role": message.role, "content": message.content} for message in request.messages or ()]
    if request.system:
        messages.insert(0, {"role": "system", "content": request.system})
    param = "messages" if request.prompt is None else "prompt"
    effort = request.reasoning_effort
    conversation = Conversation(
        tuple(messages),
        thinking=request.enable_thinking,
        template_kwargs={} if effort is None else {"reasoning_effort": effort},
    )
    return GenerationRequest(request, conversation=conversation, limit=limit, seed=seed, param=param)


def _raw_text(request: InferenceRequest) -> str:
    """Return the prompt without a chat template."""
    if request.prompt is None:
        raise RbeeError(
            ErrorCode.INVALID_REQUEST,
            "'raw' needs 'prompt': messages can only be rendered with the chat template.",
            hint="Send 'prompt' together with 'raw', or omit 'raw'.",
            param="raw",
        )
    return f"{request.system}\n\n{request.prompt}" if request.system else request.prompt


def build_generation(
    request: GenerationRequest,
    tokens: list[int],
    request_id: str,
    engine: Engine,
    *,
    grammar: Grammar | None,
    begun_at: float,
    after: Generation | None,
) -> Generation:
    """Build the generation of a request, whose prompt has *tokens*, for the batcher.

    Args:
        grammar: the request's constraint, compiled.
        begun_at, after: see `Generation`.
    """
    room = engine.facts.context - len(tokens)
    seed = secrets.randbelow(MAX_SEED + 1) if request.seed is None else request.seed
    markers = {engine.special_token(text): text.encode() for text in request.markers}
    return Generation(
        request_id,
        tokens,
        limit=room if request.limit is None else min(request.limit, room),
        chain=build_chain(request.sampling, seed, bias=request.bias, grammar=grammar),
        seed=seed,
        stops=request.sampling.stop,
        logprobs=request.logprobs,
        markers={token: text for token, text in markers.items() if token is not None},
        thought=None if request.thought is None else Thought(request.thought, _closing(request.thought, engine)),
        begun_at=begun_at,
        after=after,
    )


def _closing(marks: ThoughtMarks, engine: Engine) -> list[int]:
    """Return the tokens that end a thought."""
    if marks.budget is None:
        return []
    end = marks.ends[0]
    special = engine.special_token(end) is not None
    return engine.tokenize_parts([(end, special)], guard=choose_guard([end]))
