"""Follow the generations of one request: text, tool calls and ends, for any format of response."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.worker.compat.tool_call_parser import Arguments, CallStart, ParsedPiece, ToolCallParser
from rbee.worker.compat.tools import Call, ToolCallFormat
from rbee.worker.generation import Finished, Generation, TextWithLogprobs, TokenLogprob
from rbee.worker.progress_comments import PROGRESS_INTERVAL_S

Reason = Literal["stop", "length", "tool_calls"]


@dataclass(frozen=True, slots=True)
class Usage:
    """The tokens of a request; those of a prompt with several answers count once."""

    prompt: int
    cached: int
    answer: int


@dataclass(slots=True)
class Outcome:
    """One complete answer. `stop` is the stop string that ended it, if any."""

    text: str = ""
    calls: list[Call] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    reason: Reason = "stop"
    stop: str | None = None


class EventWriter(Protocol):
    """Write the events of one request's answers; a choice is the number of an answer, from 0."""

    def text(self, choice: int, text: str, logprobs: Sequence[TokenLogprob]) -> bytes:
        """Write a part of the text."""

    def tool_call_start(self, choice: int, call: CallStart) -> bytes:
        """Write the start of a tool call; its arguments follow."""

    def tool_call_arguments(self, choice: int, arguments: str) -> bytes:
        """Write a part of the arguments."""

    def tool_call_end(self, choice: int) -> bytes:
        """Write the end of the tool call; one that is cut off has no end but that of the answer."""

    def finish(self, choice: int, outcome: Outcome) -> bytes:
        """Write the end of an answer; of the outcome only `reason` and `stop` count."""


class ResponseWriter(EventWriter, Protocol):
    """Write one format of response, as a stream or complete."""

    def start(self, prompt_tokens: int) -> bytes:
        """Write the start of the stream."""

    def end(self, usage: Usage) -> bytes:
        """Write the regular end of the stream."""

    def complete(self, outcomes: Sequence[Outcome], usage: Usage) -> bytes:
        """Write the complete response as JSON."""


class Answer:
    """The generations of one request.

    Args:
        call_format: how tool calls are written, where there may be some.
        each: how many successive generations have the same prompt.
        echo: the text that each answer begins with.
    """

    def __init__(
        self,
        generations: Sequence[Generation],
        *,
        call_format: ToolCallFormat | None = None,
        each: int,
        echo: Sequence[str] = (),
    ) -> None:
        self.generations = generations
        self._parsers = [ToolCallParser(call_format) if call_format is not None else None for _ in generations]
        self._finished: dict[int, Finished] = {}
        self._each = each
        self._echo = echo

    @property
    def usage(self) -> Usage:
        """Return the token counts, once all generations are over."""
        first = range(0, len(self.generations), self._each)
        return Usage(
            prompt=sum(len(self.generations[number].prompt) for number in first),
            cached=sum(self._finished[number].cached_tokens for number in first),
            answer=sum(finished.total_tokens for finished in self._finished.values()),
        )

    @property
    def prompt_tokens(self) -> int:
        """Return the number of tokens in the prompts."""
        return sum(len(one.prompt) for one in self.generations[:: self._each])

    async def events(self, choice: int, writer: EventWriter) -> AsyncIterator[bytes]:
        """Yield one answer as it is generated, written by *writer*; yield b"" for each second of silence.

        Raises RbeeError where the answer failed.
        """
        generation, parser = self.generations[choice], self._parsers[choice]
        if self._echo:
            yield writer.text(choice, self._echo[choice], ())
        while True:
            written = []
            events = await generation.next_events(PROGRESS_INTERVAL_S)
            if not events:
                yield b""
            for event in events:
                if isinstance(event, str):
                    written.append(self._write_text(choice, writer, parser, event, ()))
                elif isinstance(event, TextWithLogprobs):
                    written.append(self._write_text(choice, writer, parser, event.text, event.logprobs))
                elif isinstance(event, RbeeError):
                    raise event
                else:
                    outcome = self._outcome(choice, event)
                    rest = parser.finish() if parser is not None else ()
                    written += [_write_piece(writer, choice, item, ()) for item in rest]
                    if parser is not None and parser.called and not parser.open and outcome.reason == "stop":
                        outcome.reason = "tool_calls"
                    written.append(writer.finish(choice, outcome))
                    if any(written):
                        yield b"".join(written)
                    return
            if any(written):
                yield b"".join(written)

    async def outcomes(self) -> list[Outcome]:
        """Wait for all answers and return them. Raises RbeeError where one failed."""
        collectors = [_Collector() for _ in self.generations]
        await asyncio.gather(*(self._collect(number, collectors[number]) for number in range(len(self.generations))))
        return [collector.outcome for collector in collectors]

    async def _collect(self, choice: int, collector: _Collector) -> None:
        async for _ in self.events(choice, collector):
            pass

    def _outcome(self, choice: int, finished: Finished) -> Outcome:
        self._finished[choice] = finished
        if finished.finish_reason == "cancelled":
            raise RbeeError(ErrorCode.CANCELED, "The request was canceled before it was complete.")
        return Outcome(reason=finished.finish_reason, stop=finished.stop)

    def _write_text(
        self,
        choice: int,
        writer: EventWriter,
        parser: ToolCallParser | None,
        text: str,
        logprobs: Sequence[TokenLogprob],
    ) -> bytes:
        if parser is None:
            return writer.text(choice, text, logprobs)
        items = parser.feed(text)
        return b"".join(
            _write_piece(writer, choice, item, logprobs if not number else ()) for number, item in enumerate(items)
        )


def _write_piece(writer: EventWriter, choice: int, item: ParsedPiece, logprobs: Sequence[TokenLogprob]) -> bytes:
    if isinstance(item, str):
        return writer.text(choice, item, logprobs)
    if isinstance(item, Arguments):
        return writer.tool_call_arguments(choice, item.text)
    return writer.tool_call_start(choice, item) if isinstance(item, CallStart) else writer.tool_call_end(choice)


class _Collector:
    """A writer that collects the answer and writes nothing."""

    def __init__(self) -> None:
        self.outcome = Outcome()
        self._pieces: list[str] = []

    def text(self, choice: int, text: str, logprobs: Sequence[TokenLogprob]) -> bytes:
        del choice
        self.outcome.text += text
        self.outcome.logprobs += logprobs
        return b""

    def tool_call_start(self, choice: int, call: CallStart) -> bytes:
        del choice
        self._pieces = []
        self.outcome.calls.append(Call(call.id, call.name, "", whole=False))
        return b""

    def tool_call_arguments(self, choice: int, arguments: str) -> bytes:
        del choice
        self._pieces.append(arguments)
        return b""

    def tool_call_end(self, choice: int) -> bytes:
        del choice
        self._keep(whole=True)
        return b""

    def finish(self, choice: int, outcome: Outcome) -> bytes:
        del choice
        if self.outcome.calls and not self.outcome.calls[-1].whole:
            self._keep(whole=False)
        self.outcome.reason, self.outcome.stop = outcome.reason, outcome.stop
        return b""

    def _keep(self, *, whole: bool) -> None:
        calls = self.outcome.calls
        calls[-1] = replace(calls[-1], arguments="".join(self._pieces), whole=whole)
