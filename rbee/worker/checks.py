"""Refuse what a worker cannot do before it is begun: too few slots, tokens that do not exist, wrong grammars."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.worker.engine.protocol import Engine
from rbee.worker.settings import WorkerSettings
from rbee.worker.wish import Wish


async def check(wishes: Sequence[Wish], engine: Engine) -> Sequence[Wish]:
    """Give the wishes as they can be met; those of one request differ in prompt and seed.

    Raises RbeeError INVALID_REQUEST if one cannot be. A grammar that the client did not ask for is left out instead.
    """
    first = wishes[0]
    vocabulary = engine.facts.vocabulary
    for token in first.bias:
        if not 0 <= token < vocabulary:
            raise RbeeError(
                ErrorCode.INVALID_REQUEST,
                f"logit_bias names token {token}; the model's tokens are 0 to {vocabulary - 1}.",
                param="logit_bias",
            )
    check_tokens(wishes, engine)
    if first.scores is not None:
        await asyncio.to_thread(__import__, "numpy")  # else the engine's thread would wait for its import
    if first.grammar is not None:
        fault = await asyncio.to_thread(engine.grammar_fault, first.grammar)
        if fault is not None and first.grammar_wished:
            raise RbeeError(ErrorCode.INVALID_REQUEST, f"The grammar cannot be used: {fault}.", param="grammar")
        if fault is not None:
            return [replace(wish, grammar=None) for wish in wishes]
    return wishes


def check_tokens(wishes: Sequence[Wish], engine: Engine) -> None:
    """Raise RbeeError INVALID_REQUEST for a prompt with a token that is not the model's, which ends llama.cpp."""
    vocabulary = engine.facts.vocabulary
    for wish in wishes:
        for token in wish.tokens or ():
            if not 0 <= token < vocabulary:
                raise RbeeError(
                    ErrorCode.INVALID_REQUEST,
                    f"The prompt has token {token}; the model's tokens are 0 to {vocabulary - 1}.",
                    param=wish.param,
                )


def check_pools(engine: Engine, name: str, *, pairs: bool) -> None:
    """Raise RbeeError INVALID_REQUEST if the model was not made to embed texts, or with *pairs* to rank documents.

    llama.cpp would pool the states of any model; of one that was not trained for it the outcome is of no use.
    """
    facts = engine.facts
    if facts.embedding and facts.ranks is pairs:
        return
    made_for = "rank documents" if facts.ranks else "embed texts" if facts.embedding else "write text"
    lacks, needs = ("cannot rank documents", "reranking") if pairs else ("has no embeddings to give", "embeddings")
    raise RbeeError(
        ErrorCode.INVALID_REQUEST,
        f"{name} is made to {made_for} and {lacks}.",
        hint=f"Serve a model that was made for {needs}.",
        param="model",
    )


def check_writes(engine: Engine, name: str) -> None:
    """Raise RbeeError INVALID_REQUEST if the model writes no text."""
    if engine.facts.embedding:
        purpose, route = ("reranking", "/v1/rerank") if engine.facts.ranks else ("embeddings", "/v1/embeddings")
        raise RbeeError(
            ErrorCode.INVALID_REQUEST,
            f"{name} is made for {purpose} and writes no text.",
            hint=f"Ask it at {route}, or serve a model that writes.",
            param="model",
        )


def check_slots(settings: WorkerSettings, free: int, wanted: int) -> None:
    """Raise RbeeError INVALID_REQUEST if there are too few slots, ALL_SLOTS_BUSY if too few are free now."""
    total = settings.slots
    if wanted > total:
        raise RbeeError(
            ErrorCode.INVALID_REQUEST,
            f"{wanted} answers at once are wished; worker {settings.worker_id} has {total} slots.",
            hint="Ask for fewer answers, or start the worker with more slots.",
            param="n",
            details={"slots_total": total},
        )
    if free < wanted:
        short = f"{free} slots of worker {settings.worker_id} are free; {wanted} are needed."
        raise RbeeError(
            ErrorCode.ALL_SLOTS_BUSY,
            short if free else f"All {total} slots of worker {settings.worker_id} are busy.",
            details={"slots_total": total, "slots_busy": total - free},
        )
