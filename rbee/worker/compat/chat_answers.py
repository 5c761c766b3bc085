"""Prepare the generations of a chat: render it, find the form of its answers, and hold them to what is demanded."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.worker.chat.answers import AnswerReader
from rbee.worker.chat.conversation import Conversation
from rbee.worker.chat.demands import answer_demanded, calls_demanded, calls_held
from rbee.worker.chat.forms import AnswerForm
from rbee.worker.chat.grammar import Marks
from rbee.worker.chat.prompts import PromptTokenizer
from rbee.worker.compat.chat_params import ChatParams, replicate
from rbee.worker.engine.protocol import Engine
from rbee.worker.generation_request import GenerationRequest
from rbee.worker.scheduling.thought import ThoughtMarks
from rbee.worker.text.constraint import Constraint


@dataclass(frozen=True, slots=True)
class PreparedChat:
    """The generations of a chat, and what reads their answers.

    Args:
        stops: texts that end an answer because the model's template says so.
        begun: the end of the prompt, where the answer continues a message; else "".
        single: there is one call at most in an answer.
    """

    requests: list[GenerationRequest]
    form: AnswerForm
    stops: tuple[str, ...]
    begun: str
    single: bool

    def readers(self) -> list[AnswerReader | None]:
        """Return a reader for each answer, None where all of it is content."""
        return [self.form.reader(begun=self.begun, single=self.single) for _ in self.requests]


async def prepare(params: ChatParams, tokenizer: PromptTokenizer, engine: Engine) -> PreparedChat:
    """Prepare the generations of a chat.

    Raises RbeeError context_length_exceeded, or INVALID_REQUEST for what contradicts itself or the model cannot do.
    """
    tools = params.callable_tools
    answer = params.answer
    conversation = params.conversation
    rendered = await tokenizer.render(conversation, param=params.param)
    begun = rendered.ending if conversation.continues else ""
    kind = replace(conversation, tools=tools, tool_choice="auto" if tools else "none")
    form = await tokenizer.form(kind)
    marks = _marks(form, engine)
    constraint = await _Demand(params, kind, form, tokenizer, begun, marks).constraint(answer)
    request = GenerationRequest(
        params.sampling.model_copy(update={"stop": [*params.sampling.stop, *form.stops]}),
        tokens=rendered.tokens,
        limit=params.limit,
        seed=params.seed,
        logprobs=params.logprobs,
        bias=params.bias,
        constraint=constraint,
        markers=() if form.is_plain else marks.texts,
        thought=_thought(form, rendered.ending, params.thinking.budget),
        param=params.param,
    )
    stops = tuple(stop for stop in form.stops if stop not in params.sampling.stop)
    return PreparedChat(replicate(request, params.choices), form, stops, begun, single=params.single)


def _marks(form: AnswerForm, engine: Engine) -> Marks:
    texts = tuple(filter(None, dict.fromkeys((*form.preserved_tokens, form.thinking_start, *form.thinking_ends))))
    tokens = {text: engine.special_token(text) for text in texts}
    return Marks(texts, {text: token for text, token in tokens.items() if token is not None})


def _thought(form: AnswerForm, ending: str, budget: int | None) -> ThoughtMarks | None:
    if not form.thinking_start or not form.thinking_ends:
        return None
    return ThoughtMarks(form.thinking_start, form.thinking_ends, begun=form.thinks(ending), budget=budget)


@dataclass(frozen=True, slots=True)
class _Demand:
    """What the answers to a request are held to.

    Args:
        kind: the conversation with the tools that may be called.
        form: of its answers.
        begun: the end of the prompt, where it is not that of the form.
    """

    params: ChatParams
    kind: Conversation
    form: AnswerForm
    tokenizer: PromptTokenizer
    begun: str
    marks: Marks

    async def constraint(self, answer: Constraint | None) -> Constraint | None:
        """Return the constraint, given what the content must match; schemas are read off the event loop.

        Raises RbeeError INVALID_REQUEST.
        """
        tools, single, fields = self.kind.tools, self.params.single, self.params.schema_fields
        if self.params.tool_choice == "required":
            calls = await self._calls()
            if calls is None:
                raise RbeeError(
                    ErrorCode.INVALID_REQUEST,
                    "This worker has no chat library of llama.cpp: it cannot call tools.",
                    hint="Install the wheel of this version of rbee: make setup, or rbee-keeper hive upgrade.",
                    param="tool_choice",
                )
            return await asyncio.to_thread(
                calls_demanded, calls, tools, begun=self.begun, marks=self.marks, single=single, fields=fields
            )
        if answer is not None:
            calls = await self._calls() if tools else None
            content = await self.tokenizer.form(replace(self.kind, tools=(), tool_choice="none"))
            return await asyncio.to_thread(
                answer_demanded,
                content,
                answer,
                begun=self.begun,
                marks=self.marks,
                calls=calls,
                tools=tools,
                single=single,
                fields=fields,
            )
        if not tools or not self.form.parser:
            return None
        return await asyncio.to_thread(calls_held, self.form, tools, marks=self.marks, single=single, fields=fields)

    async def _calls(self) -> AnswerForm | None:
        """Return the form of answers that are calls; None where there is no library to read them."""
        if not self.form.parser:
            return None
        return await self.tokenizer.form(replace(self.kind, tool_choice="required"))
