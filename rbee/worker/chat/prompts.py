"""Tokenize prompts and conversations, and check that they fit the context."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.worker.chat.conversation import Conversation
from rbee.worker.chat.forms import AnswerForm
from rbee.worker.chat.plain_text import choose_guard, client_texts, cut_at_marks, forged_marks, guarded, unescaped
from rbee.worker.confined.process import ConfinedProcess, OverrunError
from rbee.worker.engine.protocol import Engine
from rbee.worker.generation_request import GenerationRequest

SHORT_CHARS: Final = 8192  # up to here, a thread would cost more than it saves the event loop
_PROBE_CHARS: Final = 8  # a token of the context; hardly any text has fewer tokens
CHATML: Final = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_TEMPLATE: Final = "the model has no chat template: chats are written as ChatML, which it may not know"
MAX_KEPT_FORMS: Final = 32
_ROUNDS: Final = 4  # marks that come to light only when others are broken


@dataclass(frozen=True, slots=True)
class RenderedChat:
    """A conversation in tokens; `ending` is the end of its text, which begins the answer."""

    tokens: tuple[int, ...]
    ending: str


class PromptTokenizer:
    """The tokenizer of one model; *template* is used instead of the model's own chat template.

    A model without one is spoken to in ChatML, the form that most models have in common.

    Only the event loop's thread may use it, after it was made in any.
    """

    def __init__(self, engine: Engine, template: str | None = None) -> None:
        self._engine = engine
        self._source = template or engine.facts.chat_template or CHATML
        self._renderer = ConfinedProcess("rbee.worker.chat.rendering")
        self._description: dict[str, Any] | None = None
        self._forms: OrderedDict[str, AnswerForm] = OrderedDict()
        self._guard = choose_guard([self._source])

    @property
    def warning(self) -> str | None:
        """Return what an operator should know of the template, if anything."""
        return NO_TEMPLATE if self._source is CHATML and not self._engine.facts.embedding else None

    async def description(self) -> dict[str, Any]:
        """Return what the chat template can do, as `rendering.Chat.description` does.

        The template is opened at the first call. Raises RbeeError MODEL_INVALID if it does not parse: raw prompts still
        work.
        """
        if self._description is None:
            self._description = await self._ask()
        return self._description

    async def form(self, conversation: Conversation) -> AnswerForm:
        """Return how answers to a conversation are read, which depends on its tools and options only.

        Raises RbeeError INVALID_REQUEST where the template refuses the tools.
        """
        asked = {
            **conversation.options,
            "tools": list(conversation.tools),
            "tool_choice": conversation.tool_choice,
        }
        key = json.dumps(asked)
        found = self._forms.get(key)
        if found is None:
            found = AnswerForm.model_validate(await self._ask(form=asked))
            self._forms[key] = found
            while len(self._forms) > MAX_KEPT_FORMS:
                self._forms.popitem(last=False)
        self._forms.move_to_end(key)
        return found

    async def render(self, conversation: Conversation, *, param: str, answer: bool = True) -> RenderedChat:
        """Return a conversation in tokens, which leave room for an answer if there is to be one.

        Raises RbeeError context_length_exceeded, or INVALID_REQUEST where the template refuses the messages.
        """
        tokens, rendered = await self._chat_tokens(conversation, param, bounded=answer)
        if answer:
            self._check_room(tokens, param, answer=True)
        return RenderedChat(tuple(tokens), rendered["generation_prompt"])

    async def close(self) -> None:
        """End the process that renders."""
        await self._renderer.close()

    async def tokenize(self, request: GenerationRequest, *, answer: bool = True) -> list[int]:
        """Return the tokens, which leave room for an answer if there is to be one.

        Raises RbeeError context_length_exceeded, or INVALID_REQUEST if there are none.
        """
        if request.conversation is not None:
            tokens, _ = await self._chat_tokens(request.conversation, request.param, bounded=True)
        else:
            if request.text is not None:
                await self._check_beginning(request.text, request.param)
            short = request.size <= SHORT_CHARS
            tokens = self._tokens(request) if short else await asyncio.to_thread(self._tokens, request)
        self._check_room(tokens, request.param, answer=answer)
        return tokens

    def _check_room(self, tokens: list[int], param: str, *, answer: bool) -> None:
        if len(tokens) > self._engine.facts.context - answer:
            raise self._too_long(f"{len(tokens)}", len(tokens), param, answer=answer)
        if not tokens:
            raise RbeeError(ErrorCode.INVALID_REQUEST, "The prompt is empty.", param=param)

    async def _check_beginning(self, text: str, param: str | None) -> None:
        """Refuse a text whose beginning alone overflows the context, instead of tokenizing all of it.

        The cut may split the last word in another way than the whole text would: hence twice the context.
        """
        context = self._engine.facts.context
        end = 2 * _PROBE_CHARS * context
        if len(text) <= end:
            return
        count = len(await asyncio.to_thread(self._engine.tokenize, text[:end], special=True))
        if count >= 2 * context:
            raise self._too_long(f"more than {count}", count, param, answer=False)

    def _too_long(self, stated: str, count: int, param: str | None, *, answer: bool) -> RbeeError:
        """Build the error, in the words by which clients of OpenAI and of Anthropic know it."""
        context = self._engine.facts.context
        room = ", at least one of them for the answer" if answer else ""
        return RbeeError(
            ErrorCode.CONTEXT_LENGTH_EXCEEDED,
            f"The prompt is too long: {stated} tokens > {context - answer} maximum. "
            f"This model's maximum context length is {context} tokens{room}.",
            param=param,
            details={"prompt_tokens": count, "context_tokens": context},
        )

    def _tokens(self, request: GenerationRequest) -> list[int]:
        if request.tokens is not None:
            return list(request.tokens)
        if request.query is not None:
            return self._engine.tokenize_pair(request.query, request.text or "")
        return self._engine.tokenize(request.text or "", special=not request.plain)

    async def _chat_tokens(
        self, conversation: Conversation, param: str, *, bounded: bool
    ) -> tuple[list[int], dict[str, Any]]:
        """Return the tokens of a conversation, in which only the template's own marks are control tokens.

        Where no text of the client's holds one, the rendered text is tokenized as it is. Else it is rendered again with
        those texts guarded, which may bring further marks to light. Also returns what `Chat.render` does, unguarded.
        """
        count = sum(1 for message in conversation.messages if message.get("content"))
        if bounded and count > self._engine.facts.context:  # each is a token at least, and rendering them takes seconds
            raise self._too_long(f"at least {count}", count, param, answer=True)
        texts = [*client_texts(conversation.messages), *client_texts(conversation.tools)]
        texts += client_texts(conversation.template_kwargs)
        marks: set[str] = set()
        guard = self._guard
        first: dict[str, Any] = {}
        for _ in range(_ROUNDS):
            rendered = await self._rendered(conversation, param, marks, guard)
            first = first or rendered
            prompt = unescaped(rendered["prompt"], guard) if marks else str(rendered["prompt"])
            if bounded and not marks:
                await self._check_beginning(prompt, param)
            tokens = await self._in_thread_if_long(prompt, lambda text: self._engine.tokenize(text, special=True))
            found = {text for token in set(tokens) if (text := self._engine.control_text(token))}
            forged = forged_marks(found, texts)
            if forged <= marks:
                if marks:
                    tokens = await self._in_thread_if_long(prompt, self._cut(found | marks, guard))
                return tokens, first
            if not marks and any(guard in text for text in texts):
                guard = choose_guard([*texts, self._source])
            marks |= forged
        raise RbeeError(
            ErrorCode.INVALID_REQUEST,
            "The messages are full of the names of control tokens, more than can be told from the template's own.",
            param=param,
        )

    def _cut(self, marks: set[str], guard: str) -> Callable[[str], list[int]]:
        return lambda text: self._engine.tokenize_parts(cut_at_marks(text, marks), guard=guard)

    async def _rendered(self, conversation: Conversation, param: str, marks: set[str], guard: str) -> dict[str, Any]:
        given: dict[str, Any] = {
            "messages": list(conversation.messages),
            "tools": list(conversation.tools),
            **conversation.options,
        }
        if marks:
            given |= {name: guarded(given[name], marks, guard) for name in ("messages", "tools", "template_kwargs")}
        try:
            rendered: dict[str, Any] = await self._ask(**given, continue_final_message=conversation.continues)
        except RbeeError as error:
            if error.code is ErrorCode.INVALID_REQUEST:  # of the template, which knows no request
                error.param = param
            raise
        return rendered

    async def _ask(self, **given: Any) -> Any:
        facts = self._engine.facts
        request = {"source": self._source, "begin": facts.begin_text, "end": facts.end_text, **given}
        try:
            return await self._renderer.call(request)
        except OverrunError as error:
            raise RbeeError(
                ErrorCode.MODEL_INVALID,
                f"The model's chat template was stopped: {error}.",
                hint="Give the worker another template (--chat-template-file), use another file of the model, "
                "or send a raw prompt ('raw': true, --raw).",
            ) from error

    @staticmethod
    async def _in_thread_if_long(text: str, tokenize: Callable[[str], list[int]]) -> list[int]:
        return tokenize(text) if len(text) <= SHORT_CHARS else await asyncio.to_thread(tokenize, text)
