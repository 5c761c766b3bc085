"""Tokenize prompts and conversations, and check that they fit the context."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Final

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.worker.engine.protocol import Engine
from rbee.worker.generation_request import GenerationRequest

if TYPE_CHECKING:
    from rbee.worker.text.template import ChatTemplate

SHORT_CHARS: Final = 8192  # up to here, a thread would cost more than it saves the event loop


class PromptTokenizer:
    """The tokenizer of one model; *template* is used instead of the model's own chat template."""

    def __init__(self, engine: Engine, template: str | None = None) -> None:
        self._engine = engine
        self._source = template or engine.facts.chat_template
        self._lock = threading.Lock()
        self._template: ChatTemplate | None = None

    def template(self) -> ChatTemplate:
        """Return the chat template, compiled at the first call; may be called from any thread.

        Raises RbeeError INVALID_REQUEST if there is none, MODEL_INVALID if it does not compile: raw prompts still work.
        """
        with self._lock:
            if self._template is None:
                from rbee.worker.text.template import ChatTemplate, no_template  # jinja2 would delay the worker's start

                facts = self._engine.facts
                if not self._source:
                    raise no_template()
                self._template = ChatTemplate(self._source, begin=facts.begin_text, end=facts.end_text)
            return self._template

    async def tokenize(self, request: GenerationRequest) -> list[int]:
        """Return the tokens. Raises RbeeError INVALID_REQUEST if they leave no room for an answer."""
        tokens = await self._all_tokens(request)
        context = self._engine.facts.context
        if len(tokens) >= context:
            raise RbeeError(
                ErrorCode.INVALID_REQUEST,
                f"The prompt has {len(tokens)} tokens; the context holds {context}, including at least one generated.",
                hint="Shorten the prompt, or start the worker with a larger context.",
                param=request.param,
                details={"prompt_tokens": len(tokens), "context_tokens": context},
            )
        if not tokens:
            raise RbeeError(ErrorCode.INVALID_REQUEST, "The prompt is empty.", param="prompt")
        return tokens

    async def count(self, request: GenerationRequest) -> int:
        """Return the number of tokens, however many they are."""
        return len(await self._all_tokens(request))

    async def _all_tokens(self, request: GenerationRequest) -> list[int]:
        if request.size <= SHORT_CHARS:
            return self._tokens(request)
        return await asyncio.to_thread(self._tokens, request)

    def _tokens(self, request: GenerationRequest) -> list[int]:
        if request.tokens is not None:
            return list(request.tokens)
        if request.query is not None:
            return self._engine.tokenize_pair(request.query, request.text or "")
        if request.text is not None:
            return self._engine.tokenize(request.text, special=True)
        return self._engine.tokenize(self.template().render(request.messages or (), tools=request.tools), special=True)
