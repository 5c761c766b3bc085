"""Follow the generations of one request: text, calls of tools and ends, whatever dialect they are told in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from rbee.contracts.errors import ErrorCode
from rbee.daemonkit.sse import PING_INTERVAL_S
from rbee.errors import RbeeError
from rbee.worker.edge.call_reader import Arguments, CallBegun, CallReader, Told
from rbee.worker.edge.tools import Call, CallForm
from rbee.worker.generation import Ending, Generation, Scored, TokenScore

Reason = Literal["stop", "length", "tool_calls"]


@dataclass(frozen=True, slots=True)
class Usage:
    """The tokens that a request took; those of a prompt with several answers count once."""

    prompt: int
    cached: int
    answer: int


@dataclass(slots=True)
class Outcome:
    """One answer, whole. `stop` is the stop string that ended it, if one did."""

    text: str = ""
    calls: list[Call] = field(default_factory=list)
    scores: list[TokenScore] = field(default_factory=list)
    reason: Reason = "stop"
    stop: str | None = None


class Teller(Protocol):
    """Tell the answers of one request; a choice is the number of an answer, from 0."""

    def said(self, choice: int, text: str, scores: Sequence[TokenScore]) -> bytes:
        """Tell a piece of text."""

    def call_begun(self, choice: int, call: CallBegun) -> bytes:
        """Tell that a call of a tool begins; its arguments follow."""

    def call_goes_on(self, choice: int, arguments: str) -> bytes:
        """Tell a piece of the arguments."""

    def call_ended(self, choice: int) -> bytes:
        """Tell that the call is over; one that is cut off has no end but that of the answer."""

    def ended(self, choice: int, outcome: Outcome) -> bytes:
        """Tell that an answer is over; of the outcome only the end counts."""


class Dialect(Teller, Protocol):
    """Tell them to one kind of client, as a stream or at once."""

    def opening(self, prompt_tokens: int) -> bytes:
        """Begin the stream."""

    def closing(self, usage: Usage) -> bytes:
        """End the stream well."""

    def whole(self, outcomes: Sequence[Outcome], usage: Usage) -> bytes:
        """Give everything at once, as JSON."""


class Answer:
    """The generations of one request.

    Args:
        form: how calls of tools are written, where there may be some.
        each: how many of the generations, one after the other, have the same prompt.
        echo: what each answer begins with.
    """

    def __init__(
        self, generations: Sequence[Generation], *, form: CallForm | None = None, each: int, echo: Sequence[str] = ()
    ) -> None:
        self.generations = generations
        self._readers = [CallReader(form) if form is not None else None for _ in generations]
        self._endings: dict[int, Ending] = {}
        self._each = each
        self._echo = echo

    @property
    def usage(self) -> Usage:
        """Count the tokens, once all generations are over."""
        first = range(0, len(self.generations), self._each)
        return Usage(
            prompt=sum(len(self.generations[number].prompt) for number in first),
            cached=sum(self._endings[number].cached_tokens for number in first),
            answer=sum(ending.total_tokens for ending in self._endings.values()),
        )

    @property
    def prompt_tokens(self) -> int:
        """Count the tokens of the prompts."""
        return sum(len(one.prompt) for one in self.generations[:: self._each])

    async def events(self, choice: int, teller: Teller) -> AsyncIterator[bytes]:
        """Give one answer as it comes, in the words of *teller*; empty where there is nothing to say for a while.

        Raises RbeeError where the answer could not be ended.
        """
        generation, reader = self.generations[choice], self._readers[choice]
        if self._echo:
            yield teller.said(choice, self._echo[choice], ())
        while True:
            told = []
            events = await generation.take(PING_INTERVAL_S)
            if not events:
                yield b""
            for event in events:
                if isinstance(event, str):
                    told.append(self._told(choice, teller, reader, event, ()))
                elif isinstance(event, Scored):
                    told.append(self._told(choice, teller, reader, event.text, event.scores))
                elif isinstance(event, RbeeError):
                    raise event
                else:
                    outcome = self._outcome(choice, event)
                    rest = reader.finish() if reader is not None else ()
                    told += [_one(teller, choice, item, ()) for item in rest]
                    if reader is not None and reader.called and not reader.open and outcome.reason == "stop":
                        outcome.reason = "tool_calls"
                    told.append(teller.ended(choice, outcome))
                    if any(told):
                        yield b"".join(told)
                    return
            if any(told):
                yield b"".join(told)

    async def outcomes(self) -> list[Outcome]:
        """Wait for all answers. Raises RbeeError where one could not be ended."""
        collectors = [_Collector() for _ in self.generations]
        await asyncio.gather(*(self._collect(number, collectors[number]) for number in range(len(self.generations))))
        return [collector.outcome for collector in collectors]

    async def _collect(self, choice: int, collector: _Collector) -> None:
        async for _ in self.events(choice, collector):
            pass

    def _outcome(self, choice: int, ending: Ending) -> Outcome:
        self._endings[choice] = ending
        if ending.finish_reason == "cancelled":
            raise RbeeError(ErrorCode.CANCELED, "The request was canceled before its answer was whole.")
        return Outcome(reason=ending.finish_reason, stop=ending.stop)

    def _told(
        self, choice: int, teller: Teller, reader: CallReader | None, text: str, scores: Sequence[TokenScore]
    ) -> bytes:
        if reader is None:
            return teller.said(choice, text, scores)
        items = reader.feed(text)
        return b"".join(_one(teller, choice, item, scores if not number else ()) for number, item in enumerate(items))


def _one(teller: Teller, choice: int, item: Told, scores: Sequence[TokenScore]) -> bytes:
    if isinstance(item, str):
        return teller.said(choice, item, scores)
    if isinstance(item, Arguments):
        return teller.call_goes_on(choice, item.text)
    return teller.call_begun(choice, item) if isinstance(item, CallBegun) else teller.call_ended(choice)


class _Collector:
    """A teller that says nothing and remembers the answer."""

    def __init__(self) -> None:
        self.outcome = Outcome()
        self._pieces: list[str] = []

    def said(self, choice: int, text: str, scores: Sequence[TokenScore]) -> bytes:
        del choice
        self.outcome.text += text
        self.outcome.scores += scores
        return b""

    def call_begun(self, choice: int, call: CallBegun) -> bytes:
        del choice
        self._pieces = []
        self.outcome.calls.append(Call(call.id, call.name, "", whole=False))
        return b""

    def call_goes_on(self, choice: int, arguments: str) -> bytes:
        del choice
        self._pieces.append(arguments)
        return b""

    def call_ended(self, choice: int) -> bytes:
        del choice
        self._keep(whole=True)
        return b""

    def ended(self, choice: int, outcome: Outcome) -> bytes:
        del choice
        if self.outcome.calls and not self.outcome.calls[-1].whole:
            self._keep(whole=False)
        self.outcome.reason, self.outcome.stop = outcome.reason, outcome.stop
        return b""

    def _keep(self, *, whole: bool) -> None:
        calls = self.outcome.calls
        calls[-1] = replace(calls[-1], arguments="".join(self._pieces), whole=whole)
