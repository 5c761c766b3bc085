"""Grammars are compiled once, kept, and refused with the field that they came from."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from rbee.contracts.devices import Backend
from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.worker.confined.process import ConfinedProcess
from rbee.worker.engine import fake
from rbee.worker.engine.protocol import EngineOptions
from rbee.worker.grammars import MAX_KEPT, GrammarCompiler
from rbee.worker.text.constraint import MAX_CONSTRAINT_CHARS, Constraint, gbnf, json_answer

UNUSABLE = "start: other"


def run(work: Callable[[GrammarCompiler, fake.FakeEngine], Awaitable[None]]) -> None:
    async def whole() -> None:
        engine = fake.load(EngineOptions(Path("fake.gguf"), Backend.CPU, 0, slots=2), lambda _share, _layers: True)
        compiler = GrammarCompiler()
        try:
            await work(compiler, engine)
        finally:
            await compiler.close()

    asyncio.run(whole())


def test_what_was_compiled_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same schema, in another request, is not compiled again; the oldest gives way to the newest."""
    asked = []
    call = ConfinedProcess.call

    async def counted(self: ConfinedProcess, request: dict[str, object]) -> object:
        asked.append(request)
        return await call(self, request)

    monkeypatch.setattr(ConfinedProcess, "call", counted)

    async def work(compiler: GrammarCompiler, engine: fake.FakeEngine) -> None:
        first = await compiler.compile(json_answer({"type": "object"}, strict=False), engine)
        assert await compiler.compile(json_answer({"type": "object"}, strict=False), engine) is first
        assert len(asked) == 1
        for number in range(MAX_KEPT):
            await compiler.compile(gbnf(f'root ::= "{number}"'), engine)
        await compiler.compile(json_answer({"type": "object"}, strict=False), engine)
        assert len(asked) == 1 + MAX_KEPT + 1

    run(work)


@pytest.mark.parametrize(
    ("constraint", "param", "reason"),
    [
        (gbnf("root ::= other"), "grammar", "other"),
        (json_answer({"type": "bee"}, strict=False), "response_format", "bee"),
        (json_answer({"type": "string", "pattern": "(?=a)b"}, strict=True), "response_format", "look-ahead"),
        (json_answer({"if": {}, "then": {}}, strict=True), "response_format", "if"),
        (Constraint("x" * (MAX_CONSTRAINT_CHARS + 1), "tools"), "tools", str(MAX_CONSTRAINT_CHARS)),
    ],
)
def test_what_cannot_be_held_is_refused(constraint: Constraint, param: str, reason: str) -> None:
    """A grammar or schema that cannot be held is INVALID_REQUEST, with the field and the key or limit."""

    async def work(compiler: GrammarCompiler, engine: fake.FakeEngine) -> None:
        with pytest.raises(RbeeError, match=reason) as caught:
            await compiler.compile(constraint, engine)
        assert caught.value.code is ErrorCode.INVALID_REQUEST
        assert caught.value.param == param

    run(work)


def test_a_grammar_that_nobody_asked_for_is_left_out() -> None:
    """A grammar that only tools brought along is no reason to refuse: the answer goes without it."""

    async def work(compiler: GrammarCompiler, engine: fake.FakeEngine) -> None:
        assert await compiler.compile(Constraint(UNUSABLE, "tools", required=False), engine) is None
        with pytest.raises(RbeeError):
            await compiler.compile(Constraint(UNUSABLE, "tools"), engine)

    run(work)
