"""Refuse what an engine cannot do before it is asked to: tokens that do not exist, grammars that do not compile."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.worker.engine.protocol import Engine
from rbee.worker.wish import Wish


async def check(wishes: Sequence[Wish], engine: Engine) -> None:
    """Raise RbeeError INVALID_REQUEST if a wish cannot be met; wishes of one request differ in prompt and seed."""
    first = wishes[0]
    vocabulary = engine.facts.vocabulary
    for token in first.bias:
        if not 0 <= token < vocabulary:
            raise RbeeError(
                ErrorCode.INVALID_REQUEST,
                f"logit_bias names token {token}; the model's tokens are 0 to {vocabulary - 1}.",
                param="logit_bias",
            )
    for wish in wishes:
        for token in wish.tokens or ():
            if not 0 <= token < vocabulary:
                raise RbeeError(
                    ErrorCode.INVALID_REQUEST,
                    f"The prompt has token {token}; the model's tokens are 0 to {vocabulary - 1}.",
                    param=wish.param,
                )
    if first.scores is not None:
        await asyncio.to_thread(__import__, "numpy")  # else the engine's thread would wait for its import
    if first.grammar is not None:
        fault = await asyncio.to_thread(engine.grammar_fault, first.grammar)
        if fault is not None:
            raise RbeeError(ErrorCode.INVALID_REQUEST, f"The grammar cannot be used: {fault}.", param="grammar")
