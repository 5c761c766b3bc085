"""Relay a worker's stream to the client as it comes: count tokens, detect its end or its break, parse nothing.

Only whole lines are relayed, so that what the queen itself adds, such as the error that ends a broken stream,
never lands in the middle of a worker's event.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from rbee.contracts.errors import ErrorCode
from rbee.contracts.ids import PROGRESS_COMMENT, SSE_DONE
from rbee.daemonkit.dialects import Dialect
from rbee.errors import RbeeError
from rbee.queen.relay.connection import UpstreamConnection, UpstreamError
from rbee.queen.relay.response_sink import ByteSink, ResponseSink
from rbee.queen.relay.token_usage import TAIL_BYTES, split_counts, stream_usage, without_comments, without_counts
from rbee.queen.usage.ledger import Usage

MAX_LINE_BYTES = 8 * 1024 * 1024
_ERROR_BODY: Final = b'{"error":'  # no answer of any dialect begins like that
_MAX_ERROR_BYTES: Final = 65_536
_DONE_LINE = f"data: {SSE_DONE}\n\n".encode()
_DONE_MARK = f"data: {SSE_DONE}".encode()
_PROGRESS: Final = f": {PROGRESS_COMMENT} ".encode()
LOST_SILENCE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class StreamMarkers:
    """The bytes that mark a token in a stream (anywhere), its good or bad end, and its very last line.

    A stream without `comments` has none for its client, only some for the queen.

    Quotes and line ends inside a text are escaped in JSON, so what begins a line is never text of the model,
    and neither is a bare quote.
    """

    token: bytes
    done: tuple[bytes, ...]
    failed: bytes
    last: bytes | None = None
    comments: bool = True


STREAM_MARKERS: Final = {
    Dialect.OWN: StreamMarkers(b'"token":', (b'data: {"done":',), b"event: error", _DONE_MARK),
    Dialect.OPENAI: StreamMarkers(b"data: {", (_DONE_MARK,), b'data: {"error":'),
    Dialect.ANTHROPIC: StreamMarkers(b"event: content_block_delta", (b"event: message_stop",), b"event: error"),
    Dialect.RESPONSES: StreamMarkers(
        b".delta\n",  # ends the line that names an event: a part of a text or of a call's arguments
        (b"event: response.completed", b"event: response.incomplete"),
        b"event: error",
    ),
    # A line of JSON has no other line end than its own.
    Dialect.OLLAMA: StreamMarkers(b'"done": false}\n', (b'{"done": true',), b'{"error":', comments=False),
}


class StreamObserver:
    """Observe a stream by its bytes: count its tokens, detect how it ends."""

    def __init__(self, dialect: Dialect = Dialect.OWN) -> None:
        self.tokens = 0
        self.first_token_at: float | None = None
        """When the first token came, in seconds of the event loop; None before, and where none is told apart."""
        self.done = False
        self.failed = False
        self.terminator_seen = False
        self._markers = STREAM_MARKERS[dialect]
        self.comments = self._markers.comments
        self._rest = b""
        # The counts are at the beginning and at the end: what is between is only passed on.
        self._between = False
        self._first = self._last = self._end = b""
        self._whole: Usage | None = None

    @property
    def usage(self) -> Usage:
        """Return what the answer used so far."""
        if self._whole is not None:
            return self._whole
        return stream_usage(self._first, self._end, self.tokens)

    @property
    def ended(self) -> bool:
        """Return whether the stream reported its end, good or bad."""
        return self.done or self.failed

    def feed(self, data: bytes) -> bytes:
        """Observe a chunk of the stream; return the whole lines that may be relayed."""
        if self._rest:
            data = self._rest + data
        cut = data.rfind(b"\n") + 1
        if not cut:
            self._rest = data
            return b""
        if cut == len(data):
            self._rest = b""
        else:
            self._rest = data[cut:]
            data = data[:cut]
        markers = self._markers
        self.tokens += data.count(markers.token)
        for marker in markers.done:
            if marker in data and _begins_line(data, marker):
                self.done, self._between = True, False
        if markers.failed in data and _begins_line(data, markers.failed):
            self.failed = True
        if self._between:
            self._last = data
            return data
        return self._feed_edge(data)

    def feed_whole(self, data: bytes) -> bytes:
        """Observe a chunk of an answer that is no stream; return what of it may be relayed, without the counts."""
        data = self._rest + data
        self._rest = data[-TAIL_BYTES:]
        return data[:-TAIL_BYTES]

    def end_whole(self) -> bytes:
        """Observe the end of an answer that is no stream; return the rest of it."""
        rest, self._whole = split_counts(self._rest)
        self.done = True
        return rest

    def _feed_edge(self, data: bytes) -> bytes:
        """Observe the first lines of a stream, or the last ones; return them without the counts."""
        self._first = self._first or data
        if self.done:
            last = self._markers.last
            if last is None or last in data:
                self.terminator_seen = True
            # The counts come right before the end, which may have been torn off them on its way.
            self._end = self._end or self._last + data
        self._last, self._between = data, bool(self._first) and not self.done
        return without_counts(data)

    @property
    def held_bytes(self) -> int:
        """Return the size of a line that has not ended yet."""
        return len(self._rest)


async def relay(upstream: UpstreamConnection, out: ByteSink, observer: StreamObserver, guard: StallGuard) -> None:
    """Relay *upstream*'s body to *out* until the stream has ended and reported it.

    Each chunk is written in the read that brought it. While the client must be waited for nothing more is read, so a
    slow client slows its worker and nothing accumulates here.

    Args:
        observer: counts tokens; the caller reads it afterwards, also where this raises.
        guard: of *upstream*; it is told of every token, and of progress without one.

    Raises:
        RbeeError: WORKER_CRASHED where the stream broke off, and the guard's where it fell silent.
    """
    pump = _Pump(upstream, out.write, observer, guard)
    try:
        while await upstream.pipe_to(pump.take):
            guard.sending = True
            await out.send(pump.held)
            guard.sending = False
            guard.record_progress()
    except UpstreamError as error:
        if guard.stalled:
            raise guard.error(observer.tokens) from error
        if not observer.ended:
            raise _stream_broken(observer, str(error)) from error
    finally:
        guard.cancel()
    if not observer.ended:
        raise _stream_broken(observer, "the stream ended without its last event")
    if observer.done and not observer.terminator_seen:
        await out.send(_DONE_LINE)


class _Pump:
    """Write one stream's chunks to its client; `held` is the chunk for which the client must be waited for."""

    def __init__(
        self, upstream: UpstreamConnection, write: Callable[[bytes], bool], observer: StreamObserver, guard: StallGuard
    ) -> None:
        self.held = b""
        self._upstream = upstream
        self._write = write
        self._observer = observer
        self._guard = guard

    def take(self, data: bytes) -> bool:
        """Write a chunk; return False where that must wait."""
        observer = self._observer
        before = observer.tokens
        lines = observer.feed(data)
        if observer.tokens and not before:
            observer.first_token_at = self._guard.now()
        if observer.tokens != before or (_PROGRESS in lines and _begins_line(lines, _PROGRESS)):
            self._guard.record_progress()
        if not observer.comments:
            lines = without_comments(lines)
        if lines and not self._write(lines):
            self.held = lines
            return False
        if observer.held_bytes > MAX_LINE_BYTES:
            self._upstream.abort(UpstreamError("it sent a line that is too long"))
        return True


async def relay_whole(upstream: UpstreamConnection, out: ResponseSink, observer: StreamObserver) -> None:
    """Relay an answer that is no stream, from its first bytes on.

    Raises RbeeError WORKER_CRASHED where it broke off, and the worker's own error where it could not finish; where
    nothing had come, the client can still be told.
    """
    first = True
    try:
        while data := await upstream.read():
            if first and data.startswith(_ERROR_BODY):
                raise await _error_of(upstream, data, observer)
            first = False
            if data := observer.feed_whole(data):
                await out.start(upstream.ignored)
                await out.send(data)
    except UpstreamError as error:
        raise _stream_broken(observer, str(error)) from error
    await out.start(upstream.ignored)
    await out.send(observer.end_whole())


async def _error_of(upstream: UpstreamConnection, data: bytes, observer: StreamObserver) -> RbeeError:
    """Read the rest of an error that came in place of an answer, whose head the worker had sent already."""
    while len(data) < _MAX_ERROR_BYTES and (more := await upstream.read()):
        data += more
    observer.failed = True
    try:
        error = RbeeError.from_body(json.loads(data))
    except ValueError:
        error = None
    return error or _stream_broken(observer, "the worker sent no answer")


class StallGuard:
    """Abort *upstream* when it has sent neither a token nor progress for *stall_s* seconds.

    One timer a stream, which checks now and then: a timer for each token would cost more than relaying the token.
    While a chunk is being sent the client is the slow one, and time does not count against the worker.
    """

    def __init__(self, upstream: UpstreamConnection, stall_s: float) -> None:
        self.sending = False
        self.stalled = False
        self._upstream = upstream
        self._stall_s = stall_s
        self._lost: str | None = None
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time()
        self._timer = self._loop.call_later(stall_s, self._check)

    def now(self) -> float:
        """Return the time of the event loop, in seconds."""
        return self._loop.time()

    def record_progress(self) -> None:
        """Restart the time."""
        self._last = self._loop.time()

    def hive_lost(self, reason: str | None) -> None:
        """Allow little silence for as long as the worker's hive is lost because of *reason*; None where it is back.

        The machine may be gone with the hive. A worker that still sends goes on: its hive may be frozen alone.
        """
        self._lost = reason
        self._timer.cancel()
        self._check()

    def error(self, tokens: int) -> RbeeError:
        """Return the error of a stream that was aborted after so many tokens."""
        details = {"tokens": tokens}
        if self._lost is not None:
            message = f"The worker's machine was lost after {tokens} tokens: {self._lost}."
            return RbeeError(ErrorCode.CONNECTION_TIMEOUT, message, details=details)
        message = f"The worker made no progress for {self._stall_s:g} s, after {tokens} tokens."
        return RbeeError(ErrorCode.WORKER_STALLED, message, details=details)

    def cancel(self) -> None:
        """Stop the timer."""
        self._timer.cancel()

    def _check(self) -> None:
        limit = self._stall_s if self._lost is None else min(self._stall_s, LOST_SILENCE_S)
        left = limit if self.sending else self._last + limit - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._check)
            return
        self.stalled = True
        self._upstream.abort(UpstreamError("it stalled"))


def _begins_line(data: bytes, marker: bytes) -> bool:
    return data.startswith(marker) or b"\n" + marker in data


def _stream_broken(observer: StreamObserver, reason: str) -> RbeeError:
    return RbeeError(
        ErrorCode.WORKER_CRASHED,
        f"The worker's stream broke off after {observer.tokens} tokens: {reason}.",
        details={"tokens": observer.tokens},
    )
