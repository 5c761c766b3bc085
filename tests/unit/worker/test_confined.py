"""What strangers wrote is read by a process that may be stopped, or die, and is there again for the next."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

import psutil
import pytest

from rbee.errors import RbeeError
from rbee.worker.confined.process import TIME_LIMIT_S, ConfinedProcess, OverrunError
from rbee.worker.text.constraint import Constraint, gbnf, json_answer

TEMPLATES = "rbee.worker.chat.rendering"
GRAMMARS = "rbee.worker.engine.guidance"
GOOD = "{{ messages[0].content }}"
MAX_WAIT_S = TIME_LIMIT_S + 8  # this machine may be busy; the limit itself is that of the process


def request(source: str) -> dict[str, Any]:
    return {"source": source, "begin": "", "end": "", "messages": [{"role": "user", "content": "bees"}]}


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{{ range(999999999) | list | length }}",
        "{% set n = namespace(x='aaaaaaaa') %}{% for i in range(64) %}{% set n.x = n.x + n.x %}{% endfor %}",
        "{% set n = namespace(x=[1]) %}{% for i in range(64) %}{% set n.x = n.x + n.x %}{% endfor %}",
    ],
)
def test_a_template_is_stopped_at_its_limits(source: str) -> None:
    """A template that goes on for ever or takes all memory is stopped, and the next prompt is rendered as ever."""

    async def work() -> None:
        process = ConfinedProcess(TEMPLATES)
        began = time.monotonic()
        with pytest.raises(OverrunError, match="more than"):
            await process.call(request(source))
        assert time.monotonic() - began < MAX_WAIT_S
        assert (await process.call(request(GOOD)))["prompt"] == "bees"
        await process.close()

    run(work())


def test_a_template_that_calls_itself_is_an_error() -> None:
    """Deep recursion ends the process that renders, and the next prompt is rendered as ever."""

    async def work() -> None:
        process = ConfinedProcess(TEMPLATES)
        with pytest.raises(OverrunError, match="ended the process"):
            await process.call(request("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}"))
        assert (await process.call(request(GOOD)))["prompt"] == "bees"
        await process.close()

    run(work())


def chain(length: int) -> str:
    rules = "".join(f"a{number} ::= a{number + 1}\n" for number in range(length))
    return f'root ::= a0\n{rules}a{length} ::= "x"'


@pytest.mark.parametrize(
    "constraint",
    [
        gbnf("root ::= " + "(" * 45_000 + '"a"' + ")" * 45_000),
        gbnf(chain(4000)),
        gbnf("root ::= a"),
        gbnf(" "),
        json_answer(
            {"allOf": [{"type": "string", "pattern": f"a.{{{count}}}b"} for count in range(1, 40)]}, strict=True
        ),
        Constraint("start: a0\n" + "".join(f"a{n}: a{n + 1}\n" for n in range(5000)) + 'a5000: "x"', "tools"),
    ],
    ids=["parentheses", "chain", "unknown rule", "empty", "intersections", "deep chain"],
)
def test_a_grammar_that_cannot_be_used_harms_nobody(constraint: Constraint) -> None:
    """A grammar that overruns a stack, a time or a reader is an error, and the next one is read as ever."""

    async def work() -> None:
        process = ConfinedProcess(GRAMMARS)
        began = time.monotonic()
        with pytest.raises((OverrunError, RbeeError)):
            await process.call(constraint.message())
        assert time.monotonic() - began < MAX_WAIT_S
        assert "bee" in (await process.call(gbnf('root ::= "bee"').message()))["grammar"]
        await process.close()

    run(work())


def test_one_that_is_no_longer_waited_for_leaves_no_answer_behind() -> None:
    """Where the client leaves, the answer that would still come is not taken for that of the next."""

    async def work() -> None:
        process = ConfinedProcess(TEMPLATES)
        await process.start()
        slow = "{% for a in range(9999) %}{% for b in range(999) %}{% endfor %}{% endfor %}slow"
        waiting = asyncio.ensure_future(process.call(request(slow)))
        await asyncio.wait([waiting], timeout=0.05)
        waiting.cancel()
        assert (await process.call(request(GOOD)))["prompt"] == "bees"
        await process.close()

    run(work())


def test_nothing_is_left_at_the_end() -> None:
    """A process that was closed is gone, and has had none of the worker's environment."""

    async def work() -> None:
        process = ConfinedProcess(TEMPLATES)
        await process.start()
        assert process._process is not None
        child = psutil.Process(process._process.pid)
        assert not any("KEY" in name or "TOKEN" in name for name in child.environ())
        running = process._process
        await process.close()
        await asyncio.wait_for(running.wait(), 10)

    run(work())
