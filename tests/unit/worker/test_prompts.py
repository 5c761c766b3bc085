"""Tokenizing prompts: what is refused, and how much is read for it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rbee.contracts.devices import Backend
from rbee.contracts.errors import ErrorCode
from rbee.contracts.tasks import Sampling
from rbee.errors import RbeeError
from rbee.worker.chat.conversation import Conversation
from rbee.worker.chat.prompts import PromptTokenizer
from rbee.worker.engine import fake
from rbee.worker.engine.fake import FakeEngine
from rbee.worker.engine.protocol import EngineOptions
from rbee.worker.generation_request import GenerationRequest

CONTEXT = 100


@dataclass
class Reading:
    """The characters of all texts that were tokenized, and what came of it."""

    chars: int
    texts: list[str] = field(default_factory=list)
    tokens: list[int] | None = None
    error: RbeeError | None = None


def read(monkeypatch: pytest.MonkeyPatch, *, answer: bool = True, **prompt: Any) -> Reading:
    """Tokenize a prompt for an engine with a context of `CONTEXT` tokens."""
    reading = Reading(chars=0)
    original = FakeEngine.tokenize

    def tokenize(self: FakeEngine, text: str, *, special: bool) -> list[int]:
        reading.chars += len(text)
        reading.texts.append(text)
        return original(self, text, special=special)

    engine = fake.load(EngineOptions(Path("x"), Backend.CPU, 0, 1, context=CONTEXT), lambda *_: True)
    monkeypatch.setattr(FakeEngine, "tokenize", tokenize)

    async def work() -> None:
        tokenizer = PromptTokenizer(engine)
        try:
            reading.tokens = await tokenizer.tokenize(GenerationRequest(Sampling(), **prompt), answer=answer)
        except RbeeError as error:
            reading.error = error
        finally:
            await tokenizer.close()

    asyncio.run(work())
    return reading


@pytest.mark.parametrize(
    ("messages", "new_turn", "rendered"),
    [
        ([("user", "Bees?"), ("assistant", "They are")], False, "user: Bees?\nassistant:They are"),
        ([("user", "Bees?"), ("assistant", "They are")], True, "user: Bees?\nassistant: They are\nassistant:"),
        ([("user", "Bees?"), ("assistant", "")], False, "user: Bees?\nassistant: \nassistant:"),
        ([("assistant", "They are")], False, "assistant: They are\nassistant:"),
        ([("assistant", "Hm?"), ("user", "Bees?")], False, "assistant: Hm?\nuser: Bees?\nassistant:"),
    ],
)
def test_a_message_that_the_assistant_has_begun_is_continued(
    monkeypatch: pytest.MonkeyPatch, messages: list[tuple[str, str]], new_turn: bool, rendered: str
) -> None:
    """A last message of the assistant is the beginning of the answer, unless a new turn is asked for."""
    given = tuple({"role": role, "content": content} for role, content in messages)

    assert read(monkeypatch, conversation=Conversation(given, new_turn=new_turn)).texts == [rendered]


@pytest.mark.parametrize("own", [None, "{{ messages[0].content }}"])
def test_a_model_without_a_template_is_spoken_to_in_chatml(own: str | None) -> None:
    """It chats all the same, and the operator is warned; a template of the operator's own needs no warning."""
    options = EngineOptions(Path("x"), Backend.CPU, 0, 1, extra={"template": None})
    engine = fake.load(options, lambda *_: True)

    async def work() -> tuple[list[int], str | None]:
        tokenizer = PromptTokenizer(engine, own)
        try:
            asked = Conversation(({"role": "user", "content": "Bees?"},))
            return await tokenizer.tokenize(GenerationRequest(Sampling(), conversation=asked)), tokenizer.warning
        finally:
            await tokenizer.close()

    tokens, warning = asyncio.run(work())
    text = b"".join(map(engine.piece, tokens)).decode()

    if own is None:
        assert text == "<|im_start|>user\nBees?<|im_end|>\n<|im_start|>assistant\n"
        assert "no chat template" in (warning or "")
    else:
        assert (text, warning) == ("Bees?", None)


@pytest.mark.parametrize("chat", [False, True])
def test_a_prompt_far_beyond_the_context_is_refused_by_its_beginning(
    monkeypatch: pytest.MonkeyPatch, chat: bool
) -> None:
    """What a prompt costs that cannot fit is bounded by the context, not by its length."""
    text = "bee " * 400_000
    reading = read(
        monkeypatch,
        **({"conversation": Conversation(({"role": "user", "content": text},))} if chat else {"text": text}),
    )

    assert reading.error is not None
    assert "more than" in reading.error.message
    assert reading.chars < 20 * CONTEXT


@pytest.mark.parametrize(("answer", "fitting"), [(True, CONTEXT - 1), (False, CONTEXT)])
def test_an_answer_needs_room_and_an_embedding_none(
    monkeypatch: pytest.MonkeyPatch, answer: bool, fitting: int
) -> None:
    """A text may fill the context, less one token where an answer is to follow; the error names the maximum."""
    assert read(monkeypatch, answer=answer, text=" ".join(["bee"] * fitting)).error is None

    error = read(monkeypatch, answer=answer, text=" ".join(["bee"] * (fitting + 1))).error

    assert error is not None
    assert error.code is ErrorCode.CONTEXT_LENGTH_EXCEEDED
    assert f"{fitting + 1} tokens > {fitting} maximum" in error.message
    assert f"maximum context length is {CONTEXT} tokens" in error.message


def test_a_long_text_of_few_tokens_is_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """A text is refused by the tokens that it has, not by its characters."""
    reading = read(monkeypatch, text=f"{'b' * 5000} bee")

    assert reading.tokens is not None
    assert len(reading.tokens) == 2
