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
from rbee.queen.recipients import Outlet, Recipient
from rbee.queen.upstream import Upstream, UpstreamBroken

MAX_LINE_BYTES = 8 * 1024 * 1024
_DONE_LINE = f"data: {SSE_DONE}\n\n".encode()
_DONE_MARK = f"data: {SSE_DONE}".encode()


@dataclass(frozen=True, slots=True)
class Marks:
    """What tells in a stream that a token came (anywhere), that it ended well or badly, and its very last line.

    Quotes and line ends inside a text are escaped in JSON, so what begins a line is never something that the model
    said, and neither is a bare quote.
    """

    token: bytes
    done: tuple[bytes, ...]
    failed: bytes
    last: bytes | None = None


MARKS: Final = {
    Dialect.OWN: Marks(b'"token":', (b'data: {"done":',), b"event: error", _DONE_MARK),
    Dialect.OPENAI: Marks(b"data: {", (_DONE_MARK,), b'data: {"error":'),
    Dialect.ANTHROPIC: Marks(b"event: content_block_delta", (b"event: message_stop",), b"event: error"),
    Dialect.RESPONSES: Marks(
        b".delta\n",  # ends the line that names an event: a piece of a text or of a call's arguments
        (b"event: response.completed", b"event: response.incomplete"),
        b"event: error",
    ),
}


class StreamWatch:
    """Follow a stream from its bytes: count its tokens, see how it ends."""

    def __init__(self, dialect: Dialect = Dialect.OWN) -> None:
        self.tokens = 0
        self.done = False
        self.failed = False
        self.closed = False
        self._marks = MARKS[dialect]
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
        marks = self._marks
        self.tokens += data.count(marks.token)
        for mark in marks.done:
            if mark in data and _begins_line(data, mark):
                self.done = True
        if marks.failed in data and _begins_line(data, marks.failed):
            self.failed = True
        if self.done and (marks.last is None or marks.last in data):
            self.closed = True
        return data

    @property
    def held_bytes(self) -> int:
        """Count the bytes of a line that has not ended yet."""
        return len(self._rest)


async def relay(upstream: Upstream, out: Outlet, watch: StreamWatch, *, stall_s: float) -> None:
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
    passage = _Passage(upstream, out.write, watch, guard)
    try:
        while await upstream.pass_on(passage.take):
            guard.sending = True
            await out.send(passage.held)
            guard.sending = False
            guard.token()
    except UpstreamBroken as error:
        if guard.stalled:
            raise RbeeError(
                ErrorCode.WORKER_STALLED,
                f"The worker gave no token for {stall_s:g} s, after {watch.tokens} tokens.",
                details={"tokens": watch.tokens},
            ) from error
        if not watch.ended:
            raise _broken_off(watch, str(error)) from error
    finally:
        guard.cancel()
    if not watch.ended:
        raise _broken_off(watch, "it ended its stream without saying so")
    if watch.done and not watch.closed:
        await out.send(_DONE_LINE)


class _Passage:
    """The way of one stream's pieces to its client; `held` is the one that the client has to be waited for with."""

    def __init__(
        self, upstream: Upstream, write: Callable[[bytes], bool], watch: StreamWatch, guard: StallGuard
    ) -> None:
        self.held = b""
        self._upstream = upstream
        self._write = write
        self._watch = watch
        self._guard = guard

    def take(self, data: bytes) -> bool:
        """Write a piece; False where that has to wait."""
        watch = self._watch
        before = watch.tokens
        lines = watch.feed(data)
        if watch.tokens != before:
            self._guard.token()
        if lines and not self._write(lines):
            self.held = lines
            return False
        if watch.held_bytes > MAX_LINE_BYTES:
            self._upstream.abandon(UpstreamBroken("it sent a line without end"))
        return True


async def relay_whole(upstream: Upstream, out: Recipient, watch: StreamWatch) -> None:
    """Pass an answer on that is no stream, from its first byte on.

    Raises RbeeError WORKER_CRASHED where it broke off; where nothing had come, the client can still be told.
    """
    try:
        while data := await upstream.read():
            await out.begin()
            await out.send(data)
    except UpstreamBroken as error:
        raise _broken_off(watch, str(error)) from error
    watch.done = True


class StallGuard:
    """Abandon *upstream* when it has given no token for *stall_s* seconds.

    One timer a stream, which looks now and then: a timer for each token would cost more than relaying the token.
    While a piece is being sent the client is the slow one, and time does not count against the worker.
    """

    def __init__(self, upstream: Upstream, stall_s: float) -> None:
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
        self._upstream.abandon(UpstreamBroken("it stalled"))


def _begins_line(data: bytes, mark: bytes) -> bool:
    return data.startswith(mark) or b"\n" + mark in data


def _broken_off(watch: StreamWatch, reason: str) -> RbeeError:
    return RbeeError(
        ErrorCode.WORKER_CRASHED,
        f"The worker's stream broke off after {watch.tokens} tokens: {reason}.",
        details={"tokens": watch.tokens},
    )
