"""Pass a worker's stream on to the client as it comes: count, watch for the end and for a break, parse nothing.

Only whole lines are passed on, so that what the queen has to say itself, such as the error that ends a broken stream,
never lands in the middle of a worker's event.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from rbee.contracts.errors import ErrorCode
from rbee.contracts.ids import SSE_DONE
from rbee.daemonkit.dialects import Dialect
from rbee.errors import RbeeError
from rbee.queen.relay.connection import UpstreamConnection, UpstreamError
from rbee.queen.tasks.sinks import ByteSink, ResponseSink

MAX_LINE_BYTES = 8 * 1024 * 1024
_DONE_LINE = f"data: {SSE_DONE}\n\n".encode()
_DONE_MARK = f"data: {SSE_DONE}".encode()


@dataclass(frozen=True, slots=True)
class StreamMarkers:
    """What tells in a stream that a token came (anywhere), that it ended well or badly, and its very last line.

    Quotes and line ends inside a text are escaped in JSON, so what begins a line is never something that the model
    said, and neither is a bare quote.
    """

    token: bytes
    done: tuple[bytes, ...]
    failed: bytes
    last: bytes | None = None


STREAM_MARKERS: Final = {
    Dialect.OWN: StreamMarkers(b'"token":', (b'data: {"done":',), b"event: error", _DONE_MARK),
    Dialect.OPENAI: StreamMarkers(b"data: {", (_DONE_MARK,), b'data: {"error":'),
    Dialect.ANTHROPIC: StreamMarkers(b"event: content_block_delta", (b"event: message_stop",), b"event: error"),
    Dialect.RESPONSES: StreamMarkers(
        b".delta\n",  # ends the line that names an event: a piece of a text or of a call's arguments
        (b"event: response.completed", b"event: response.incomplete"),
        b"event: error",
    ),
}


class StreamObserver:
    """Follow a stream from its bytes: count its tokens, see how it ends."""

    def __init__(self, dialect: Dialect = Dialect.OWN) -> None:
        self.tokens = 0
        self.done = False
        self.failed = False
        self.closed = False
        self._markers = STREAM_MARKERS[dialect]
        self._rest = b""

    @property
    def ended(self) -> bool:
        """Tell whether the stream said how it ended, well or not."""
        return self.done or self.failed

    def feed(self, data: bytes) -> bytes:
        """Take in a piece of the stream; give the whole lines that may be passed on."""
        if self._rest:
            data = self._rest + data
        cut = data.rfind(b"\n") + 1
        if cut == len(data):
            self._rest = b""
        else:
            self._rest = data[cut:]
            data = data[:cut]
        markers = self._markers
        self.tokens += data.count(markers.token)
        for marker in markers.done:
            if marker in data and _begins_line(data, marker):
                self.done = True
        if markers.failed in data and _begins_line(data, markers.failed):
            self.failed = True
        if self.done and (markers.last is None or markers.last in data):
            self.closed = True
        return data

    @property
    def held_bytes(self) -> int:
        """Count the bytes of a line that has not ended yet."""
        return len(self._rest)


async def relay(upstream: UpstreamConnection, out: ByteSink, observer: StreamObserver, *, stall_s: float) -> None:
    """Pass *upstream*'s body on to *out* until the stream has ended and said so.

    Each piece goes out in the read that brought it. As soon as the client has to be waited for, no more is taken, so a
    slow client slows its worker and nothing piles up here.

    Args:
        watch: counts tokens; the caller reads it afterwards, also where this raises.
        stall_s: the longest time without a token.

    Raises:
        RbeeError: WORKER_CRASHED where the stream broke off, WORKER_STALLED where no token came in time.
    """
    guard = StallGuard(upstream, stall_s)
    pump = _Pump(upstream, out.write, observer, guard)
    try:
        while await upstream.pipe_to(pump.take):
            guard.sending = True
            await out.send(pump.held)
            guard.sending = False
            guard.token()
    except UpstreamError as error:
        if guard.stalled:
            raise RbeeError(
                ErrorCode.WORKER_STALLED,
                f"The worker gave no token for {stall_s:g} s, after {observer.tokens} tokens.",
                details={"tokens": observer.tokens},
            ) from error
        if not observer.ended:
            raise _stream_broken(observer, str(error)) from error
    finally:
        guard.cancel()
    if not observer.ended:
        raise _stream_broken(observer, "it ended its stream without saying so")
    if observer.done and not observer.closed:
        await out.send(_DONE_LINE)


class _Pump:
    """The way of one stream's pieces to its client; `held` is the one that the client has to be waited for with."""

    def __init__(
        self, upstream: UpstreamConnection, write: Callable[[bytes], bool], observer: StreamObserver, guard: StallGuard
    ) -> None:
        self.held = b""
        self._upstream = upstream
        self._write = write
        self._observer = observer
        self._guard = guard

    def take(self, data: bytes) -> bool:
        """Write a piece; False where that has to wait."""
        observer = self._observer
        before = observer.tokens
        lines = observer.feed(data)
        if observer.tokens != before:
            self._guard.token()
        if lines and not self._write(lines):
            self.held = lines
            return False
        if observer.held_bytes > MAX_LINE_BYTES:
            self._upstream.abort(UpstreamError("it sent a line without end"))
        return True


async def relay_whole(upstream: UpstreamConnection, out: ResponseSink, observer: StreamObserver) -> None:
    """Pass an answer on that is no stream, from its first byte on.

    Raises RbeeError WORKER_CRASHED where it broke off; where nothing had come, the client can still be told.
    """
    try:
        while data := await upstream.read():
            await out.start()
            await out.send(data)
    except UpstreamError as error:
        raise _stream_broken(observer, str(error)) from error
    observer.done = True


class StallGuard:
    """Abandon *upstream* when it has given no token for *stall_s* seconds.

    One timer a stream, which looks now and then: a timer for each token would cost more than relaying the token.
    While a piece is being sent the client is the slow one, and time does not count against the worker.
    """

    def __init__(self, upstream: UpstreamConnection, stall_s: float) -> None:
        self.sending = False
        self.stalled = False
        self._upstream = upstream
        self._stall_s = stall_s
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time()
        self._timer = self._loop.call_later(stall_s, self._look)

    def token(self) -> None:
        """Note that a token came."""
        self._last = self._loop.time()

    def cancel(self) -> None:
        """Stop looking."""
        self._timer.cancel()

    def _look(self) -> None:
        left = self._stall_s if self.sending else self._last + self._stall_s - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
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
