"""Follow the generations of one request: text, tool calls and ends, for any format of response."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.worker.chat.answers import AnswerReader
from rbee.worker.compat.message_pieces import Arguments, Call, CallEnd, CallStart, Piece, Thought
from rbee.worker.compat.reading import AnswerReading
from rbee.worker.generation import Finished, Generation, TextWithLogprobs, TokenLogprob
from rbee.worker.progress_comments import PROGRESS_INTERVAL_S

Reason = Literal["stop", "length", "tool_calls"]


@dataclass(frozen=True, slots=True)
class Usage:
    """The tokens of a request; those of a prompt with several answers count once.

    `prompt_s` are the seconds until the first token, `answer_s` those after it, `device_s` those for which the engine
    computed.
    """

    prompt: int
    cached: int
    answer: int
    thought: int = 0
    prompt_s: float = 0.0
    answer_s: float = 0.0
    device_s: float = 0.0


@dataclass(slots=True)
class Outcome:
    """One complete answer. `stop` is the stop string that ended it, if any."""

    thought: str = ""
    text: str = ""
    calls: list[Call] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    reason: Reason = "stop"
    stop: str | None = None


class EventWriter(Protocol):
    """Write the events of one request's answers; a choice is the number of an answer, from 0."""

    def thought(self, choice: int, text: str) -> bytes:
        """Write a part of the thought."""

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

    def fail(self, error: RbeeError, request_id: str | None) -> bytes:
        """Write the end of a stream that fails after its start."""

    def complete(self, outcomes: Sequence[Outcome], usage: Usage) -> bytes:
        """Write the complete response as JSON."""


class Answer:
    """The generations of one request.

    Args:
        readers: of the answers, None for one that is content as it is.
        stops: texts that end an answer because the model's template says so.
        each: how many successive generations have the same prompt.
        echo: the text that each answer begins with.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        generations: Sequence[Generation],
        *,
        readers: Sequence[AnswerReader | None] = (),
        stops: Sequence[str] = (),
        each: int,
        echo: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.generations = generations
        self._readers = readers or [None] * len(generations)
        self._stops = stops
        self._finished: dict[int, Finished] = {}
        self._each = each
        self._echo = echo
        self._clock = clock

    @property
    def usage(self) -> Usage:
        """Return the token counts, once all generations are over."""
        first = range(0, len(self.generations), self._each)
        one, now = self.generations[0], self._clock()
        first_at = now if one.first_at is None else one.first_at
        return Usage(
            prompt=sum(len(self.generations[number].prompt) for number in first),
            cached=sum(self._finished[number].cached_tokens for number in first),
            answer=sum(finished.total_tokens for finished in self._finished.values()),
            thought=sum(finished.thought_tokens for finished in self._finished.values()),
            prompt_s=first_at - one.begun_at,
            answer_s=now - first_at,
            device_s=sum(one.device_s for one in self.generations),
        )

    @property
    def prompt_tokens(self) -> int:
        """Return the number of tokens in the prompts."""
        return sum(len(one.prompt) for one in self.generations[:: self._each])

    async def events(self, choice: int, writer: EventWriter) -> AsyncIterator[bytes]:
        """Yield one answer as it is generated, written by *writer*; yield b"" for each second of silence.

        Raises RbeeError where the answer failed.
        """
        generation, reader = self.generations[choice], self._readers[choice]
        reading = None if reader is None else AnswerReading(reader, self._clock)
        if self._echo:
            yield writer.text(choice, self._echo[choice], ())
        while True:
            written = []
            events = await generation.next_events(PROGRESS_INTERVAL_S if reading is None else reading.wait_s())
            if not events and (reading is None or not reading.waits):
                yield b""
            for event in events:
                if isinstance(event, RbeeError):
                    raise event
                if isinstance(event, Finished):
                    outcome = self._outcome(choice, event)
                    if reading is not None:
                        cut = outcome.reason == "length" or outcome.stop is not None
                        written.append(_write(writer, choice, reading.end(cut=cut)))
                        if reading.called and outcome.reason == "stop":
                            outcome.reason = "tool_calls"
                    written.append(writer.finish(choice, outcome))
                    if any(written):
                        yield b"".join(written)
                    return
                text, logprobs = (event.text, event.logprobs) if isinstance(event, TextWithLogprobs) else (event, ())
                if reading is None:
                    written.append(writer.text(choice, text, logprobs))
                else:
                    reading.add(text, logprobs)
            if reading is not None:
                written.append(_write(writer, choice, reading.pieces()))
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
        return Outcome(reason=finished.finish_reason, stop=None if finished.stop in self._stops else finished.stop)


def _write(writer: EventWriter, choice: int, pieces: Sequence[Piece]) -> bytes:
    return b"".join([_write_piece(writer, choice, piece) for piece in pieces])


def _write_piece(writer: EventWriter, choice: int, piece: Piece) -> bytes:
    if isinstance(piece, str):
        return writer.text(choice, piece, ())
    if isinstance(piece, TextWithLogprobs):
        return writer.text(choice, piece.text, piece.logprobs)
    if isinstance(piece, Thought):
        return writer.thought(choice, piece.text)
    if isinstance(piece, Arguments):
        return writer.tool_call_arguments(choice, piece.text)
    if isinstance(piece, CallStart):
        return writer.tool_call_start(choice, piece)
    assert isinstance(piece, CallEnd)
    return writer.tool_call_end(choice)


class _Collector:
    """A writer that collects the answer and writes nothing."""

    def __init__(self) -> None:
        self.outcome = Outcome()
        self._pieces: list[str] = []

    def thought(self, choice: int, text: str) -> bytes:
        del choice
        self.outcome.thought += text
        return b""

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
