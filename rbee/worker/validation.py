"""Refuse before anything is computed what a worker cannot do: too few slots, unknown tokens. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.worker.engine.protocol import Engine
from rbee.worker.generation_request import GenerationRequest
from rbee.worker.settings import WorkerSettings


def check(requests: Sequence[GenerationRequest], engine: Engine) -> None:
    """Check the generations of one request, which differ in prompt and seed only.

    Raises RbeeError INVALID_REQUEST for a token that the model does not have.
    """
    vocabulary = engine.facts.vocabulary
    for token in requests[0].bias:
        if not 0 <= token < vocabulary:
            raise RbeeError(
                ErrorCode.INVALID_REQUEST,
                f"logit_bias: token {token} is outside the vocabulary (0 to {vocabulary - 1}).",
                param="logit_bias",
            )
    check_tokens(requests, engine)


def check_tokens(requests: Sequence[GenerationRequest], engine: Engine) -> None:
    """Raise RbeeError INVALID_REQUEST for a prompt with an unknown token, at which llama.cpp would abort."""
    vocabulary = engine.facts.vocabulary
    for request in requests:
        for token in request.tokens or ():
            if not 0 <= token < vocabulary:
                raise RbeeError(
                    ErrorCode.INVALID_REQUEST,
                    f"The prompt's token {token} is outside the vocabulary (0 to {vocabulary - 1}).",
                    param=request.param,
                )


def require_pooling(engine: Engine, name: str, *, pairs: bool) -> None:
    """Raise RbeeError INVALID_REQUEST if the model was not made to embed texts, or with *pairs* to rank documents.

    llama.cpp would pool the states of any model, with useless vectors where it was not trained for it.
    """
    facts = engine.facts
    if facts.embedding and facts.ranks is pairs:
        return
    kind = "a reranking model" if facts.ranks else "an embedding model" if facts.embedding else "a text model"
    needed = "rank documents" if pairs else "compute embeddings"
    raise RbeeError(
        ErrorCode.INVALID_REQUEST,
        f"{name} is {kind} and cannot {needed}.",
        hint=f"Serve {'a reranking' if pairs else 'an embedding'} model.",
        param="model",
    )


def require_text_model(engine: Engine, name: str) -> None:
    """Raise RbeeError INVALID_REQUEST if the model does not generate text."""
    if engine.facts.embedding:
        kind, route = ("a reranking", "/v1/rerank") if engine.facts.ranks else ("an embedding", "/v1/embeddings")
        raise RbeeError(
            ErrorCode.INVALID_REQUEST,
            f"{name} is {kind} model and generates no text.",
            hint=f"Send the request to {route}, or serve a text model.",
            param="model",
        )


def require_slots(settings: WorkerSettings, free: int, wanted: int) -> None:
    """Raise RbeeError ALL_SLOTS_BUSY if too few slots are free now."""
    total = settings.slots
    if free < wanted:
        too_few = f"{wanted} slots are needed; worker {settings.worker_id} has {free} free."
        raise RbeeError(
            ErrorCode.ALL_SLOTS_BUSY,
            too_few if free else f"All {total} slots of worker {settings.worker_id} are busy.",
            details={"slots_total": total, "slots_busy": total - free},
        )
