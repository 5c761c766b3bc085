"""Turn a request's prompt or messages into tokens that fit the context."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Final

from rbee.contracts.errors import ErrorCode
from rbee.contracts.tasks import InferenceRequest, Message
from rbee.errors import RbeeError
from rbee.worker.engine.protocol import Engine

if TYPE_CHECKING:
    from rbee.worker.template import ChatTemplate

SHORT_CHARS: Final = 8192  # up to here, a thread would cost more than it saves the event loop


class Prompts:
    """The prompts of one model."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
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
                if not facts.chat_template:
                    raise no_template()
                self._made = ChatTemplate(facts.chat_template, begin=facts.begin_text, end=facts.end_text)
            return self._made

    async def tokens(self, request: InferenceRequest) -> list[int]:
        """Give the tokens. Raises RbeeError INVALID_REQUEST if they leave no room for an answer."""
        size = len(request.prompt or "") + sum(len(message.content) for message in request.messages or ())
        if size <= SHORT_CHARS:
            tokens = self._tokens(request)
        else:
            tokens = await asyncio.to_thread(self._tokens, request)
        context = self._engine.facts.context
        if len(tokens) >= context:
            raise RbeeError(
                ErrorCode.INVALID_REQUEST,
                f"The prompt has {len(tokens)} tokens; with at least one for the answer, {context} fit.",
                hint="Shorten the prompt, or start the worker with a larger context.",
                param="prompt" if request.prompt is not None else "messages",
                details={"prompt_tokens": len(tokens), "context_tokens": context},
            )
        if not tokens:
            raise RbeeError(ErrorCode.INVALID_REQUEST, "The prompt has no tokens.", param="prompt")
        return tokens

    def _tokens(self, request: InferenceRequest) -> list[int]:
        if request.raw:
            return self._engine.tokenize(_raw_text(request), special=True)
        return self._engine.tokenize(self.template().render(_messages(request)), special=True)


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


def _messages(request: InferenceRequest) -> list[Message]:
    """Give the conversation, the system's words first."""
    messages = list(request.messages or ())
    if request.prompt is not None:
        messages = [Message(role="user", content=request.prompt)]
    if request.system:
        messages.insert(0, Message(role="system", content=request.system))
    return messages
