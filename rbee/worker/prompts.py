"""Turn a wish's prompt or turns into tokens that fit the context."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Final

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.worker.engine.protocol import Engine
from rbee.worker.wish import Wish

if TYPE_CHECKING:
    from rbee.worker.template import ChatTemplate

SHORT_CHARS: Final = 8192  # up to here, a thread would cost more than it saves the event loop


class Prompts:
    """The prompts of one model; *template* is used instead of the model's own chat template."""

    def __init__(self, engine: Engine, template: str | None = None) -> None:
        self._engine = engine
        self._source = template or engine.facts.chat_template
        self._lock = threading.Lock()
        self._made: ChatTemplate | None = None

    def template(self) -> ChatTemplate:
        """Compile the model's chat template, once; any thread may ask.

        Raises RbeeError INVALID_REQUEST if there is none, MODEL_INVALID if it does not compile: raw prompts still go.
        """
        with self._lock:
            if self._made is None:
                from rbee.worker.template import ChatTemplate, no_template  # jinja2 would delay the worker's start

                facts = self._engine.facts
                if not self._source:
                    raise no_template()
                self._made = ChatTemplate(self._source, begin=facts.begin_text, end=facts.end_text)
            return self._made

    async def tokens(self, wish: Wish) -> list[int]:
        """Give the tokens. Raises RbeeError INVALID_REQUEST if they leave no room for an answer."""
        tokens = await self.all_tokens(wish)
        context = self._engine.facts.context
        if len(tokens) >= context:
            raise RbeeError(
                ErrorCode.INVALID_REQUEST,
                f"The prompt has {len(tokens)} tokens; with at least one for the answer, {context} fit.",
                hint="Shorten the prompt, or start the worker with a larger context.",
                param=wish.param,
                details={"prompt_tokens": len(tokens), "context_tokens": context},
            )
        if not tokens:
            raise RbeeError(ErrorCode.INVALID_REQUEST, "The prompt has no tokens.", param="prompt")
        return tokens

    async def all_tokens(self, wish: Wish) -> list[int]:
        """Give the tokens, however many they are."""
        if wish.size <= SHORT_CHARS:
            return self._tokens(wish)
        return await asyncio.to_thread(self._tokens, wish)

    def _tokens(self, wish: Wish) -> list[int]:
        if wish.tokens is not None:
            return list(wish.tokens)
        if wish.query is not None:
            return self._engine.pair(wish.query, wish.text or "")
        if wish.text is not None:
            return self._engine.tokenize(wish.text, special=True)
        return self._engine.tokenize(self.template().render(wish.turns or (), tools=wish.tools), special=True)
